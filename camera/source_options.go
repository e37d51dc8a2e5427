package camera

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

// option sets one option of a local source from its text.
type option func(s *Source, text string) error

// options says which options a kind of source has.
func options(kind SourceKind) map[string]option {
	replay := map[string]option{
		"rate": func(s *Source, t string) error { return parseRate(&s.Rate, t) },
		"loop": func(s *Source, t string) error { return parseBool(&s.Loop, t) },
	}
	switch kind {
	case SourceV4L2:
		return map[string]option{
			"width":  func(s *Source, t string) error { return parseSide(&s.Width, t) },
			"height": func(s *Source, t string) error { return parseSide(&s.Height, t) },
			"fps":    func(s *Source, t string) error { return parseRate(&s.FPS, t) },
			"format": func(s *Source, t string) error { return parseFourCC(&s.Format, t) },
		}
	case SourceFile:
		return replay
	case SourceFolder:
		replay["gray"] = func(s *Source, t string) error { return parseBool(&s.Gray, t) }
		return replay
	}
	return nil
}

func (s *Source) setOption(key, text string) error {
	known := options(s.Kind)
	set, found := known[key]
	if !found {
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		sort.Strings(names)
		return fmt.Errorf("%w: %s has no option %q; it has %s", ErrSource, s.Kind, key, strings.Join(names, ", "))
	}
	if err := set(s, text); err != nil {
		return fmt.Errorf("%w: %s=%s: %v", ErrSource, key, text, err)
	}
	return nil
}

func parseSide(out *int, text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxSide {
		return fmt.Errorf("must be pixels, 1…%d", MaxSide)
	}
	*out = n
	return nil
}

func parseRate(out *float64, text string) error {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < 0.01 || f > MaxRate {
		return fmt.Errorf("must be frames a second, 0.01…%d", MaxRate)
	}
	*out = f
	return nil
}

func parseBool(out *bool, text string) error {
	switch text {
	case "true":
		*out = true
	case "false":
		*out = false
	default:
		return fmt.Errorf("must be true or false")
	}
	return nil
}

// parseFourCC takes the code of a pixel format, or the two names people use.
func parseFourCC(out *string, text string) error {
	code := strings.ToUpper(text)
	switch code {
	case "MJPEG":
		code = "MJPG"
	case "YUV422":
		code = "YUYV"
	}
	if len(code) != 4 || strings.ContainsFunc(code, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) {
		return fmt.Errorf("must be mjpeg, yuyv or another four-letter code")
	}
	*out = code
	return nil
}
