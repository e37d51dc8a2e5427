//go:build cgo

package tflite

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "plugin.so")
	args := append([]string{"-shared", "-fPIC", "-o", out, source}, flags...)
	if b, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, b)
	}
	return out
}

func TestExternalDelegate(t *testing.T) {
	model := sample(t, "pretrainedResnet_quant.tflite")
	plugin := compile(t, "testdata/plugin.c")
	noPlugin := compile(t, "testdata/plugin.c", "-Dtflite_plugin_destroy_delegate=other")
	for _, tc := range []struct {
		name    string
		library string
		options map[string]string
		refused Kind
		words   string
	}{
		{name: "no options", library: plugin},
		{name: "options", library: plugin, options: map[string]string{"device": "usb:0", "verbosity": "3", "empty": ""}},
		{"create fails", plugin, map[string]string{"fail": "no device at usb:0"}, KindDelegate, "no device at usb:0"},
		{"apply fails", plugin, map[string]string{"b": "2", "refuse": "1"}, KindModel, "refused, options b=2;refuse=1;"},
		{"no library", "/nowhere/libedgetpu.so.1", nil, KindDelegate, "/nowhere/libedgetpu.so.1"},
		{"no plug-in", noPlugin, nil, KindDelegate, "tflite_plugin_destroy_delegate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			it, err := Open(model, Options{Delegate: External, Library: tc.library, Options: tc.options})
			if tc.refused != "" {
				var r *Refusal
				if !errors.As(err, &r) || r.Kind != tc.refused || !strings.Contains(r.Error(), tc.words) {
					t.Errorf("error %v; want kind %s and %q", err, tc.refused, tc.words)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer it.Close()
			if used, fallback := it.Delegate(); used != External || fallback != "" {
				t.Errorf("runs on %s, fallback %q", used, fallback)
			}
			if err := it.Invoke(); err != nil {
				t.Error(err)
			}
		})
	}
}
