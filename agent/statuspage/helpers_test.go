package statuspage

import (
	"encoding/json"
	"strings"
)

// quote is s as a JavaScript literal.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func contains(text, part string) bool { return strings.Contains(text, part) }
