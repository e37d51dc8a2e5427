package main

import (
	"encoding/json"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdKeyID puts the id of a role's first key, out of what keys list --json said,
// into a variable: keyid ROLE NAME.
func cmdKeyID(ts *testscript.TestScript, neg bool, args []string) {
	var rows []roleRow
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &rows))
	for _, r := range rows {
		if r.Role == args[0] {
			ts.Setenv(args[1], r.Keys[0].ID)
			return
		}
	}
	ts.Fatalf("no role %s", args[0])
}
