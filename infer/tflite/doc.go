// Package tflite runs a classifier in the TensorFlow Lite C library.
package tflite

import tf "github.com/tphakala/go-tflite"

var _ = tf.NewModel
