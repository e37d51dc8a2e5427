#define _GNU_SOURCE /* vasprintf */

#include "runtime.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h>

static void append(drover_words* words, const char* line) {
  size_t n = strlen(line);
  while (n > 0 && line[n - 1] == '\n') n--;
  if (n == 0) return;
  size_t room = sizeof words->text - words->used - 1;
  if (words->used > 0) {
    if (room < 3) return;
    memcpy(words->text + words->used, "; ", 2);
    words->used += 2;
    room -= 2;
  }
  if (n > room) n = room;
  for (size_t i = 0; i < n; i++) words->text[words->used++] = line[i] == '\n' ? ' ' : line[i];
  words->text[words->used] = 0;
}

static void report(void* user, const char* format, va_list args) {
  char* line = NULL;
  if (vasprintf(&line, format, args) < 0) return;
  append(user, line);
  free(line);
}

void drover_words_attach(TfLiteInterpreterOptions* options, drover_words* words) {
  TfLiteInterpreterOptionsSetErrorReporter(options, report, words);
}

TfLiteDelegate* drover_xnnpack_create(int32_t threads, uint32_t flags) {
  TfLiteXNNPackDelegateOptions options;
  memset(&options, 0, sizeof options);
  options.num_threads = threads;
  options.flags = flags;
  return TfLiteXNNPackDelegateCreate(&options);
}

void drover_xnnpack_delete(TfLiteDelegate* delegate) { TfLiteXNNPackDelegateDelete(delegate); }

/* The plug-in's error callback has no user pointer, so what it says while it
   creates a delegate goes where the creating thread points. */
static __thread drover_words* creating;

static void report_external(const char* line) {
  if (creating != NULL && line != NULL) append(creating, line);
}

int drover_external_open(drover_external* out, const char* path, char** keys, char** values, size_t n,
                         drover_words* words) {
  memset(out, 0, sizeof *out);
  out->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (out->library == NULL) {
    append(words, dlerror());
    return -1;
  }
  TfLiteDelegate* (*create)(char**, char**, size_t, void (*)(const char*));
  *(void**)&create = dlsym(out->library, "tflite_plugin_create_delegate");
  *(void**)&out->destroy = dlsym(out->library, "tflite_plugin_destroy_delegate");
  if (create == NULL || out->destroy == NULL) {
    append(words, "the library lacks tflite_plugin_create_delegate or tflite_plugin_destroy_delegate");
    drover_external_close(out);
    return -1;
  }
  creating = words;
  out->delegate = create(keys, values, n, report_external);
  creating = NULL;
  if (out->delegate == NULL) {
    append(words, "the library created no delegate");
    drover_external_close(out);
    return -1;
  }
  return 0;
}

void drover_external_close(drover_external* external) {
  if (external->delegate != NULL) external->destroy(external->delegate);
  if (external->library != NULL) dlclose(external->library);
  memset(external, 0, sizeof *external);
}

int drover_quant(const TfLiteTensor* tensor, const float** scales, const int32_t** zero_points, int32_t* axis) {
  *axis = 0;
  if (tensor->quantization.type == kTfLiteAffineQuantization && tensor->quantization.params != NULL) {
    const TfLiteAffineQuantization* q = tensor->quantization.params;
    if (q->scale != NULL && q->zero_point != NULL && q->scale->size > 1 && q->scale->size == q->zero_point->size) {
      *scales = q->scale->data;
      *zero_points = q->zero_point->data;
      *axis = q->quantized_dimension;
      return q->scale->size;
    }
  }
  *scales = &tensor->params.scale;
  *zero_points = &tensor->params.zero_point;
  return tensor->params.scale != 0 ? 1 : 0;
}
