package statuspage

import (
	"math"
	"strconv"
	"time"
)

// elapsed is a duration in at most two units.
func (l language) elapsed(d time.Duration) string {
	n := strconv.Itoa
	switch {
	case d < time.Second: // a clock that was set back, too
		return l.t("unit.now")
	case d < time.Minute:
		return l.t("unit.seconds", n(int(d.Seconds())))
	case d < time.Hour:
		return l.t("unit.minutes", n(int(d.Minutes())))
	case d < 24*time.Hour:
		return l.pair("unit.hour", int(d.Hours()), int(d.Minutes())%60)
	}
	return l.pair("unit.day", int(d.Hours())/24, int(d.Hours())%24)
}

// pair is a number of units with the smaller unit unless that is zero.
func (l language) pair(unit string, n, smaller int) string {
	if smaller == 0 {
		return l.t(unit, strconv.Itoa(n))
	}
	return l.t(unit+"s", strconv.Itoa(n), strconv.Itoa(smaller))
}

// micros is a short time in microseconds with two to three digits.
func micros(us int64) string {
	switch ms := float64(us) / 1000; {
	case us < 1000:
		return strconv.FormatInt(us, 10) + " µs"
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	case ms < 1000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	default:
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + " s"
	}
}

// size is a number of bytes in decimal units.
func size(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	digits := 1
	if unit == "B" || v >= 100 {
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + unit
}

// count groups digits by thin spaces.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func rate(fps float64) string { return strconv.FormatFloat(fps, 'f', 1, 64) }

// percent is a probability as text; it never rounds up to certainty.
func percent(p float32) string {
	v := float64(p) * 100
	if v < 100 && v > 99.9 {
		v = 99.9
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + "%"
}

// finite makes a figure that JSON and arithmetic can hold.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// clock is a moment as short as its day allows, in the zone of now.
func clock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format("2 Jan 15:04:05")
}
