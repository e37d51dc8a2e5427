package statuspage

import (
	"embed"
	"encoding/json"
	"fmt"
)

//go:embed text/*.json
var texts embed.FS

// language is every word the page says in one language: text/en.json under
// keys that the code names. Another language is another file with the same
// keys. It is read-only and safe for concurrent use.
type language map[string]string

func loadLanguage(name string) (language, error) {
	b, err := texts.ReadFile("text/" + name + ".json")
	if err != nil {
		return nil, fmt.Errorf("statuspage: language %q: %w", name, err)
	}
	var l language
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("statuspage: language %q: %w", name, err)
	}
	return l, nil
}

// t is the text under key, with args put in. A word that is missing shows as
// its key, so that a gap in a translation never hides a fact.
func (l language) t(key string, args ...any) string {
	text, ok := l[key]
	if !ok {
		return key
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// word is the text for a value that a message carries, such as a state; a value
// this version does not know is shown as it is.
func (l language) word(prefix, value string) string {
	if text, ok := l[prefix+value]; ok {
		return text
	}
	return value
}
