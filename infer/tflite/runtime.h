/* What go-tflite does not do, or not safely. See doc.go. */
#ifndef DROVER_TFLITE_RUNTIME_H_
#define DROVER_TFLITE_RUNTIME_H_

#include <stddef.h>
#include <stdint.h>

#include <tensorflow/lite/c/c_api.h>
#include <tensorflow/lite/c/common.h>

/* The last things the runtime said, newest last, separated by "; "; what does not fit is dropped. */
typedef struct {
  size_t used;
  char text[1024];
} drover_words;

void drover_words_attach(TfLiteInterpreterOptions* options, drover_words* words);

TfLiteDelegate* drover_xnnpack_create(int32_t threads, uint32_t flags);
void drover_xnnpack_delete(TfLiteDelegate* delegate);

/* A delegate out of a shared object. Keys and values must stay alive and in
   place until close: a plug-in may keep the pointers. */
typedef struct {
  void* library;
  TfLiteDelegate* delegate;
  void (*destroy)(TfLiteDelegate*);
} drover_external;

/* Returns 0, or -1 with the reason in words. */
int drover_external_open(drover_external* out, const char* path, char** keys, char** values, size_t n,
                         drover_words* words);
void drover_external_close(drover_external* external);

/* Quantization of a tensor: the number of scales (0: not quantized). Scales and
   zero points stay the runtime's. */
int drover_quant(const TfLiteTensor* tensor, const float** scales, const int32_t** zero_points, int32_t* axis);

#endif
