package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/droverhq/drover/infer/cage"
)

// TestMain is three programs: the launcher stage of the cage, drover for the
// scripts, and the tests.
func TestMain(m *testing.M) {
	cage.Main()
	testscript.Main(exitAfter{m}, map[string]func(){
		"drover": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// exitAfter removes what the tests built.
type exitAfter struct{ m *testing.M }

func (e exitAfter) Run() int {
	code := e.m.Run()
	if built.remove != nil {
		built.remove()
	}
	return code
}
