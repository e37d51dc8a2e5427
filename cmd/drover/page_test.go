package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const pageHead = `# drover: the command line

This page is made of the program's own help; a test keeps it so
(` + "`go test ./cmd/drover -run TestPage -update`" + ` writes it anew).

Every command takes ` + "`--json`" + `: standard output then carries one JSON value and
nothing else. Progress, notes and logs go to standard error. An error is one line
that begins with ` + "`error:`" + `, and where there is something to do, a line that begins
with ` + "`hint:`" + `.

A fleet is found in ` + "`--fleet`" + `, in ` + "`DROVER_FLEET`" + `, in the present folder if that
holds fleet.yaml, or else in ` + "`./fleet`" + `. drover-infer, which runs models, is
found in ` + "`--programs`" + `, beside drover, or in PATH. The owner's keys are opened
with the passphrase in ` + "`DROVER_PASSPHRASE`" + `, or one that is asked for on a
terminal. Shell completion: ` + "`drover completion --help`" + `.

## Exit codes

`

// page writes docs/CLI.md: every command with its help, flags and example.
func page(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, pageHead, "```\n", exitCodesText(), "\n```\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(w, "\n## %s\n", strings.TrimSuffix(g.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				pageOf(w, c)
			}
		}
	}
	fmt.Fprint(w, "\n## Others\n")
	for _, c := range root.Commands() {
		if c.GroupID == "" && (c.Runnable() || c.Name() == "completion") && c.Name() != "help" {
			pageOf(w, c)
		}
	}
}

// pageOf writes a command, or those below it.
func pageOf(w io.Writer, c *cobra.Command) {
	if c.HasSubCommands() && c.Name() != "completion" {
		for _, child := range c.Commands() {
			pageOf(w, child)
		}
		return
	}
	text := c.Long
	if text == "" || c.Name() == "completion" {
		text = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
	}
	fmt.Fprintf(w, "\n### %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), text, c.UseLine())
	var rows []string
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			rows = append(rows, fmt.Sprintf("| `--%s` | %s |", f.Name, strings.ReplaceAll(f.Usage, "|", `\|`)))
		}
	})
	if len(rows) > 0 {
		fmt.Fprintf(w, "\n| flag | |\n|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\nExample:\n\n```\n%s\n```\n", c.Example)
	}
}

// TestPage keeps docs/CLI.md what the program says of itself, and every command
// in it with an example.
func TestPage(t *testing.T) {
	root := (&app{}).root()
	var want bytes.Buffer
	page(&want, root)
	const path = "../../docs/CLI.md"
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("docs/CLI.md is out of date; go test ./cmd/drover -run TestPage -update writes it anew")
	}
	each(root, func(c *cobra.Command) {
		if !strings.Contains(string(have), "### "+c.CommandPath()+"\n") {
			t.Errorf("docs/CLI.md lacks %q", c.CommandPath())
		}
		if c.Example == "" && c.Name() != "completion" {
			t.Errorf("%q has no example", c.CommandPath())
		}
	})
}

// each calls fn for every command that does something.
func each(c *cobra.Command, fn func(*cobra.Command)) {
	if c.Name() == "completion" || !c.HasSubCommands() && c.Runnable() && c.Name() != "help" {
		fn(c)
		return
	}
	for _, child := range c.Commands() {
		each(child, fn)
	}
}

var update = flag.Bool("update", false, "write docs/CLI.md")
