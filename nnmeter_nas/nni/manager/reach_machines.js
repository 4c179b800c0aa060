// NNI 3.0 reaches other machines by ssh and talks with a program there. Each part of this mends one thing in that.
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');

const listen = fs.readFileSync(path.join(__dirname, 'listen.js'));
const RETRY_MS = 10000;
let tarball;

const mending = {
    // On each machine NNI upgrades its package, though the versions there were checked. What it starts there listens
    // on every interface. A connection that breaks is an error that nobody hears, which ends the manager.
    './ssh': ({ Ssh }) => {
        const { run, connect } = Ssh.prototype;
        Ssh.prototype.run = async function (command) {
            if (command.endsWith('-m pip install nni --upgrade')) {
                return '';
            }
            const folder = /launch_trial_keeper (\S+)$/.exec(command);
            if (folder) {
                await this.writeFile(`${folder[1]}/listen.js`, listen);
                command = `NODE_OPTIONS='--require ${folder[1]}/listen.js' ${command}`;
            }
            return await run.call(this, command);
        };
        Ssh.prototype.connect = async function () {
            await connect.call(this);
            this.client.on('error', (error) => { this.log.error('The connection broke:', error); });
        };
    },

    // A question to a machine that is gone is never answered, and the manager waits for the answer, forever.
    'common/command_channel/rpc_util': ({ RpcHelper }) => {
        const { waitResponse } = RpcHelper.prototype;
        RpcHelper.prototype.waitResponse = function (id) {
            if (!this.gone) {
                this.gone = new Promise((_, reject) => {
                    this.channel.onError(reject);
                    this.channel.onClose((reason) => { reject(new Error(`closed: ${reason}`)); });
                });
                this.gone.catch(() => {});
            }
            return Promise.race([waitResponse.call(this, id), this.gone]);
        };
    },

    'common/tarball': (found) => { tarball = found; },

    // NNI tries once to reach a machine that is gone, and never again.
    './remote': ({ RemoteTrainingServiceV3 }) => {
        const { stop } = RemoteTrainingServiceV3.prototype;
        RemoteTrainingServiceV3.prototype.stop = function () {
            this.isStopping = true;
            return stop.call(this);
        };
        RemoteTrainingServiceV3.prototype.restartWorker = async function (gone) {
            this.stopWorker(gone, true);
            while (!this.isStopping) {
                const others = new Set(this.workers);
                try {
                    const worker = await this.launchWorker(gone.config);
                    for (const name of this.uploadedDirs) {
                        await worker.upload(name, tarball.getTarballPath(name));
                    }
                    this.log.info(`${gone.config.host} is there again`);
                    break;
                } catch (error) {
                    this.log.error(`${gone.config.host} is out of reach:`, error);
                    this.workers
                        .filter((worker) => !others.has(worker) && worker.config === gone.config)
                        .forEach((worker) => { this.stopWorker(worker, true); });
                    await new Promise((resolve) => { setTimeout(resolve, RETRY_MS).unref(); });
                }
            }
            this.emitEnvUpdate();
        };
    },
};

const load = Module._load;
Module._load = function (request, parent, ...rest) {
    const found = load.call(this, request, parent, ...rest);
    const isOurs = request.startsWith('common/') || /remote_v3/.test(parent?.filename ?? '');
    if (isOurs && mending[request]) {
        mending[request](found);
        delete mending[request];
    }
    return found;
};
