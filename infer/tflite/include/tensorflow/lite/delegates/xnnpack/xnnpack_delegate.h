/* The XNNPACK delegate's C functions, which libtensorflowlite_c exports and
   the package that ships it does not declare. Written from the exported symbols
   and the delegate's public documentation; it is no copy of the original.

   The options struct grew over the releases, so it is declared larger than any
   of them and zeroed before use: the library reads only the part it knows. */
#ifndef DROVER_TFLITE_XNNPACK_DELEGATE_H_
#define DROVER_TFLITE_XNNPACK_DELEGATE_H_

#include <stdint.h>
#include <tensorflow/lite/c/common.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TFLITE_XNNPACK_DELEGATE_FLAG_QS8 0x00000001
#define TFLITE_XNNPACK_DELEGATE_FLAG_QU8 0x00000002

typedef struct {
  int32_t num_threads;
  uint32_t flags;
  uint8_t reserved[248];
} TfLiteXNNPackDelegateOptions;

extern TfLiteDelegate* TfLiteXNNPackDelegateCreate(const TfLiteXNNPackDelegateOptions* options);
extern void TfLiteXNNPackDelegateDelete(TfLiteDelegate* delegate);

#ifdef __cplusplus
}
#endif
#endif
