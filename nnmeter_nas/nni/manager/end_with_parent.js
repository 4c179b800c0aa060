// When its parent is gone NNI's manager must end, and by SIGTERM: a manager that crashes leaves its trials running.
'use strict';

const end = () => process.kill(process.pid, 'SIGTERM');
const parent = process.ppid;
setInterval(() => { if (process.ppid !== parent) { end(); } }, 1000).unref();
process.on('uncaughtException', (error) => { console.error(error); end(); });
