// The Python module: importing it registers the operators.
#include <Python.h>
#include <torch/version.h>

#include "allocator.h"
#include "recurrence.h"

namespace {

PyObject* keep_freed_memory(PyObject*, PyObject*) {
  sru::keep_freed_memory();
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"keep_freed_memory", keep_freed_memory, METH_NOARGS, "See fairseq_sru.ops.extension."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyMODINIT_FUNC PyInit_fairseq_sru_ext() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "fairseq_sru_ext",
      "Compiled operators of fairseq-sru: torch.ops.fairseq_sru.", -1, methods};
  PyObject* module = PyModule_Create(&definition);
  if (module && (PyModule_AddStringConstant(module, "compiler", __VERSION__) < 0 ||
                 PyModule_AddStringConstant(module, "torch", TORCH_VERSION) < 0 ||
                 PyModule_AddIntConstant(module, "states_every", sru::kStatesEvery) < 0)) {
    Py_CLEAR(module);
  }
  return module;
}
