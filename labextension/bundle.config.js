// Modules are numbered in their order instead of by their paths: the same source gives the same
// bundle wherever it is built.
module.exports = {
  optimization: { moduleIds: 'natural', chunkIds: 'natural' }
};
