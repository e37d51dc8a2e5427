/* An external delegate for tests: it takes no operator. Option "fail" makes it
   refuse with the value as reason. It keeps the pointers of its options, as
   real plug-ins do, and checks them when it is applied. */
#include <stdlib.h>
#include <string.h>

#include <tensorflow/lite/c/common.h>

typedef struct {
  TfLiteDelegate base;
  char** keys;
  char** values;
  size_t n;
  char* copy; /* of all of them */
} plugin;

static char* join(char** keys, char** values, size_t n) {
  size_t size = 1;
  for (size_t i = 0; i < n; i++) size += strlen(keys[i]) + strlen(values[i]) + 2;
  char* s = calloc(1, size);
  for (size_t i = 0; i < n; i++) strcat(strcat(strcat(strcat(s, keys[i]), "="), values[i]), ";");
  return s;
}

static TfLiteStatus prepare(TfLiteContext* context, TfLiteDelegate* delegate) {
  plugin* p = delegate->data_;
  char* now = join(p->keys, p->values, p->n);
  int same = strcmp(now, p->copy) == 0;
  free(now);
  if (!same) {
    context->ReportError(context, "the option strings are gone");
    return kTfLiteError;
  }
  if (strstr(p->copy, "refuse=") != NULL) {
    context->ReportError(context, "refused, options %s", p->copy);
    return kTfLiteError;
  }
  return kTfLiteOk;
}

TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t n, void (*report)(const char*)) {
  for (size_t i = 0; i < n; i++) {
    if (strcmp(keys[i], "fail") == 0) {
      report(values[i]);
      return NULL;
    }
  }
  plugin* p = calloc(1, sizeof *p);
  p->base.data_ = p;
  p->base.Prepare = prepare;
  p->keys = keys;
  p->values = values;
  p->n = n;
  p->copy = join(keys, values, n);
  return &p->base;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  plugin* p = delegate->data_;
  free(p->copy);
  free(p);
}
