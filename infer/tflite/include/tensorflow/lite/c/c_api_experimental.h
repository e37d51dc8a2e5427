/* The few functions that libtensorflowlite_c exports and the package that
   ships it does not declare. Written from the exported symbols and the public
   documentation of the TensorFlow Lite C API; it is no copy of the original.

   go-tflite includes this file by this name. */
#ifndef DROVER_TFLITE_C_API_EXPERIMENTAL_H_
#define DROVER_TFLITE_C_API_EXPERIMENTAL_H_

#include <stdbool.h>
#include <tensorflow/lite/c/c_api.h>
#include <tensorflow/lite/c/common.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Builtin operators are numbers in the schema; an int has the enum's ABI. */
typedef int TfLiteBuiltinOperator;

/* Sets all variable tensors (state of recurrent models) to zero. */
extern TfLiteStatus TfLiteInterpreterResetVariableTensors(TfLiteInterpreter* interpreter);

/* The registration must outlive every interpreter made with the options. */
extern void TfLiteInterpreterOptionsAddBuiltinOp(TfLiteInterpreterOptions* options, TfLiteBuiltinOperator op,
                                                 const TfLiteRegistration* registration, int32_t min_version,
                                                 int32_t max_version);
extern void TfLiteInterpreterOptionsAddCustomOp(TfLiteInterpreterOptions* options, const char* name,
                                                const TfLiteRegistration* registration, int32_t min_version,
                                                int32_t max_version);

extern void TfLiteInterpreterOptionsSetUseNNAPI(TfLiteInterpreterOptions* options, bool enable);

/* Lets the runtime undo a delegate that fails and go on with its own kernels. */
extern void TfLiteInterpreterOptionsSetEnableDelegateFallback(TfLiteInterpreterOptions* options, bool enable);

#ifdef __cplusplus
}
#endif
#endif
