package main

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"

	"github.com/droverhq/drover/ota/delta"
)

// worker is a process of its own, so that it can be measured: make BASE TARGET
// DELTA, apply BASE DELTA OUT, or pair MODELS NUMBER META, which leaves the
// files base and target where it runs.
func worker(args []string) error {
	if len(args) != 4 {
		return errors.New("wanted make, apply or pair, and three arguments")
	}
	switch args[0] {
	case "make":
		return makeDelta(args[1], args[2], args[3])
	case "apply":
		return apply(args[1], args[2], args[3])
	}
	i, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	p, err := pairOf(args[1], i)
	if err != nil {
		return err
	}
	meta, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile("base", p.base, 0o600), os.WriteFile("target", p.target, 0o600), os.WriteFile(args[3], meta, 0o600))
}

func makeDelta(from, to, file string) error {
	base, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	target, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	d, err := delta.Make(base, target)
	if err != nil {
		return err
	}
	return os.WriteFile(file, d, 0o600)
}

func apply(from, file, to string) error {
	base, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(delta.Apply(base, in, info.Size(), out), out.Close())
}
