// Bench-delta compares ota/delta with what Debian has for the same purpose, on
// real models, and checks the sizes that drover promises:
//
//	head      a new head on the same frozen backbone: at most 1.05 × the new
//	          tensors, compressed
//	moved     weights moved by one quantum with some probability: at most
//	          1.05 × the zeroth-order entropy of the differences
//	unrelated two models that share nothing but their task: at most 1.02 × the
//	          best of the others
//
// Time and peak memory are those of a process that does nothing else. So this
// program leaves all that needs memory to copies of itself: a process begins
// with the peak of the one that started it, here about 10 MB.
//
//	go run ./test/bench/delta [-models FOLDER]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	models := flag.String("models", filepath.Join("..", "shared", "data", "models"), "folder with the .tflite files")
	flag.Parse()
	run := func() error { return bench(*models) }
	if flag.NArg() > 0 {
		run = func() error { return worker(flag.Args()) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-delta:", err)
		os.Exit(1)
	}
}

// bench prints the table and, last, the worst of our bytes ÷ allowed bytes.
func bench(models string) error {
	if _, err := os.Stat(models); err != nil {
		return fmt.Errorf("the models are not here (%w): -models names their folder", err)
	}
	models, err := filepath.Abs(models)
	if err != nil {
		return err
	}
	worst, err := compareAll(models)
	if err != nil {
		return err
	}
	fmt.Printf("bench-delta ratio=%.3f\n", worst)
	return nil
}

// compareAll goes through the pairs and returns the worst ratio.
func compareAll(models string) (worst float64, err error) {
	dir, err := os.MkdirTemp("", "bench-delta")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for i := range kinds {
		ratio, err := compare(dir, models, i)
		if err != nil {
			return 0, err
		}
		worst = max(worst, ratio)
	}
	return worst, nil
}

// kinds is how many pairs there are.
const kinds = 7

// pair is two models and what a delta between them may have: bytes, or a
// multiple of the least that another tool needed.
type pair struct {
	Name         string
	base, target []byte
	Allowed      float64
	OfBest       float64
	Why          string
}
