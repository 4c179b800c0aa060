// NNI 3.0 gives each process that asks for parameters those of the trial that was submitted first. Processes of two
// trials may ask in the other order: then the failure of one counts as the other's, and a trial whose machine died is
// given up for one that runs. With this each process gets the parameters of its own trial.
'use strict';

const Module = require('module');

const load = Module._load;
Module._load = function (request, ...rest) {
    const found = load.call(this, request, ...rest);
    const service = request.endsWith('training_service/v3/compat') && found.V3asV1;
    if (service && !service.hasOwnParameters) {
        service.hasOwnParameters = true;
        const submit = service.prototype.submitTrialJob;
        service.prototype.submitTrialJob = async function (form) {
            const trial = await submit.call(this, form);  // its process has not even started Python by now
            const waiting = this.parameters.indexOf(form.hyperParameters.value);
            if (waiting >= 0) {
                this.parameters.splice(waiting, 1);
                this.allocatedParameters.set(trial.id, form.hyperParameters.value);
            }
            return trial;
        };
    }
    return found;
};
