// NNI's manager runs pickled code from anyone who can reach its REST interface, and listens on every interface.
// With this it listens on one address: that in NNMETER_NAS_LISTEN, or else the machine's own.
'use strict';

const net = require('net');

if (!net.Server.nnmeterNasListens) {
    net.Server.nnmeterNasListens = true;
    const listen = net.Server.prototype.listen;
    const address = process.env.NNMETER_NAS_LISTEN || '127.0.0.1';
    net.Server.prototype.listen = function (port, ...rest) {
        return typeof port === 'number' && typeof rest[0] !== 'string'
            ? listen.call(this, port, address, ...rest)
            : listen.call(this, port, ...rest);
    };
}
