// Validates a folder of kernels with Tint, the WGSL compiler of Chromium: node tint.mjs FOLDER
//
// The folder has an index kernels.json: [{file, family, name, constants}]. The null backend of Dawn compiles nothing but checks everything,
// with the limits that WebGPU guarantees.

import { create, globals } from 'webgpu';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

Object.assign(globalThis, globals);
const folder = process.argv[2];
// What the garbage collector takes while Dawn still uses it ends the process: everything is kept until the end.
const kept = (globalThis.kept = []);
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.error('Dawn gives no adapter');
    process.exit(2);
}
const device = await adapter.requestDevice({
    requiredFeatures: ['subgroups', 'shader-f16'].filter((feature) => adapter.features.has(feature)),
});
kept.push(gpu, adapter, device);

let refused = 0;
let native = 0;
const kernels = JSON.parse(readFileSync(join(folder, 'kernels.json'), 'utf8'));
for (const { file, family, name, constants } of kernels) {
    let code = readFileSync(join(folder, file), 'utf8');
    // 64-bit integers are an extension of naga's; such kernels are never offered to a browser.
    if (/\bu64\b/.test(code)) {
        native += 1;
        continue;
    }
    // naga refuses the line that Tint asks for.
    if (/\bsubgroup\w+\s*\(|@builtin\(\s*subgroup_/.test(code)) {
        code = `enable subgroups;\n${code}`;
    }
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    const errors = messages
        .filter(({ type }) => type === 'error')
        .map(({ lineNum, message }) => `line ${lineNum}: ${message}`);
    if (errors.length === 0) {
        try {
            kept.push(await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main', constants } }));
        } catch (error) {
            errors.push(error.message);
        }
    }
    kept.push(module, messages);
    const scope = await device.popErrorScope();
    if (scope && errors.length === 0) {
        errors.push(scope.message);
    }
    if (errors.length > 0) {
        refused += 1;
        console.log(`${file}: ${family} | ${name}\n  ${errors.join('\n  ')}`);
    }
}
console.log(`${kernels.length} kernels, ${refused} refused by Tint, ${native} left out because they need 64-bit integers`);
process.exit(refused > 0 ? 1 : 0);
