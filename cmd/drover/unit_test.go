package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/infer/host"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err         error
		interrupted bool
		want        int
	}{
		{errors.New("disk on fire"), false, exitFailed},
		{fmt.Errorf("x: %w", context.Canceled), true, exitInterrupted},
		{fmt.Errorf("x: %w", context.Canceled), false, exitFailed},
		{errors.New("disk on fire"), true, exitFailed},
		{&registry.NotFoundError{What: "model", Name: "x"}, false, exitNotFound},
		{fmt.Errorf("push: %w", &host.Refusal{Kind: "model"}), false, exitRefused},
		{fmt.Errorf("%w: in %w", dataset.ErrUnreadable, registry.ErrNotFound), false, exitData}, // the order counts
		{errors.Join(errors.New("a"), cloud.ErrBusy), false, exitConflict},
		{usage("", "x"), false, exitUsage},
	} {
		if got := classify(c.err, c.interrupted).code; got != c.want {
			t.Errorf("%v, interrupted %v: exit code %d, wanted %d", c.err, c.interrupted, got, c.want)
		}
	}
	seen := map[int]bool{exitOK: true, exitFailed: true, exitInterrupted: true}
	for _, c := range classes() {
		if seen[c.code] || c.means == "" {
			t.Errorf("exit code %d stands twice or means nothing", c.code)
		}
		seen[c.code] = true
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"cloud: push x: infer/host: model refused": "push x: model refused",
		"cloud: publish: a\nregistry: b":           "a; b",
		"cloud: fleet.yaml: bad":                   "fleet.yaml: bad",
		"train at noon: dataset":                   "train at noon: dataset",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q becomes %q, wanted %q", in, got, want)
		}
	}
	if got := []rune(oneLine(strings.Repeat("ü", 5000))); len(got) != maxLine {
		t.Errorf("a long error has %d characters, wanted %d", len(got), maxLine)
	}
}

func TestSizesAndAges(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 31498: "31.5 kB", 3_560_000: "3.6 MB", 2_500_000_000: "2.5 GB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %q, wanted %q", n, got, want)
		}
	}
	now := time.Unix(1_800_000_000, 0)
	for d, want := range map[time.Duration]string{0: "now", 30 * time.Second: "30 s ago", 5 * time.Minute: "5 min ago", 3 * time.Hour: "3 h ago", 72 * time.Hour: "3 days ago"} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("age of %v is %q, wanted %q", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "never" {
		t.Errorf("age of nothing is %q", got)
	}
}
