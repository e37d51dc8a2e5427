// Package docs checks that documents do not promise what no test proves.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A proof stands in docs/THREATS.md as `package TestName` or, for one line of a
// table, as `package TestName: line`.
var proof = regexp.MustCompile("`([a-z][a-z/-]*) ((?:Test|Fuzz)\\w+)(?:: ([^`]+))?`")

// tests is the text of a package's tests.
func tests(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		all.Write(b)
	}
	return all.String(), nil
}

func TestEveryThreatNamesTestsThatExist(t *testing.T) {
	b, err := os.ReadFile("../../docs/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	threats := strings.Split(string(b), "\n### ")[1:]
	if len(threats) < 20 {
		t.Errorf("only %d threats", len(threats))
	}
	for _, text := range threats {
		title, text, _ := strings.Cut(text, "\n")
		named := proof.FindAllStringSubmatch(text, -1)
		if len(named) == 0 && !strings.Contains(text, "Not tested") {
			t.Errorf("threat %q names no test and does not say “Not tested”", title)
		}
		for _, part := range []string{"**Defence.**", "**The device**", "**Not defended.**"} {
			if !strings.Contains(text, part) {
				t.Errorf("threat %q does not say %s", title, part)
			}
		}
		for _, n := range named {
			code, err := tests(n[1])
			switch {
			case err != nil:
				t.Fatal(err)
			case !strings.Contains(code, "func "+n[2]+"("):
				t.Errorf("threat %q names %s %s, which does not exist", title, n[1], n[2])
			case n[3] != "" && !strings.Contains(code, `"`+n[3]+`"`):
				t.Errorf("threat %q names the line %q of %s %s, which does not exist", title, n[3], n[1], n[2])
			}
		}
	}
}
