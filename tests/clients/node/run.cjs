// Runs one model in onnxruntime-node, without the operator library, and prints its output as one JSON list.
//
//     node run.cjs MODEL INPUT SHAPE
//
// INPUT is a file of raw float32 numbers, SHAPE a JSON list. onnxruntime-node is found through NODE_PATH.
'use strict';

const fs = require('node:fs');
const ort = require('onnxruntime-node');

async function main([model, input, shape]) {
  const bytes = fs.readFileSync(input);
  const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const session = await ort.InferenceSession.create(model);
  const feeds = { [session.inputNames[0]]: new ort.Tensor('float32', numbers, JSON.parse(shape)) };
  const outputs = await session.run(feeds);
  console.log(JSON.stringify(Array.from(outputs[session.outputNames[0]].data)));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
