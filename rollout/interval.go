package rollout

import (
	"math"
	"strconv"
)

// Interval says what a relative change lies between, such as "between +12% and +55%", "at least +12%" or "at most +55%". It is empty where
// nothing is known of either side.
func Interval(lower, upper *float64) string {
	switch {
	case lower != nil && upper != nil:
		return "between " + signed(*lower) + " and " + signed(*upper)
	case lower != nil:
		return "at least " + signed(*lower)
	case upper != nil:
		return "at most " + signed(*upper)
	}
	return ""
}

// Interval says what the change lies between; see Interval.
func (e Evidence) Interval() string { return Interval(e.Lower, e.Upper) }

// signed is a share in percent to a tenth, with its sign.
func signed(share float64) string {
	text := strconv.FormatFloat(math.Round(1000*share)/10, 'f', -1, 64) + "%"
	if share > 0 {
		return "+" + text
	}
	return text
}
