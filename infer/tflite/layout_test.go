//go:build cgo

package tflite

import (
	"reflect"
	"testing"

	tf "github.com/tphakala/go-tflite"
)

// The C pointers are taken out of, and put into, these structs by position.
func TestGoTFLiteStructsAreOnePointer(t *testing.T) {
	for _, v := range []any{tf.Model{}, tf.InterpreterOptions{}, tf.Tensor{}} {
		typ := reflect.TypeOf(v)
		if typ.NumField() != 1 || typ.Field(0).Type.Kind() != reflect.Pointer {
			t.Errorf("%v is no longer a struct of one pointer", typ)
		}
	}
}
