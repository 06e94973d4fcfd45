// Package rollout is the domain of Aviary: what a canary rollout is (Spec), where one stands (State), and the pure
// function (Step) that decides what happens next. It imports the standard library only and reads no clock.
package rollout

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

// FullWeight is all of an agent's traffic, in basis points.
const FullWeight Weight = 10000

// Weight is the canary's share of traffic in basis points, 0 to 10000. On the wire it is a fraction 0–1, as people write it.
type Weight int

// WeightFromFraction turns a fraction 0–1 into basis points. It refuses NaN, values outside 0–1 and steps finer than 0.0001.
func WeightFromFraction(f float64) (Weight, error) {
	if math.IsNaN(f) || f < 0 || f > 1 {
		return 0, fmt.Errorf("weight %v: want a fraction from 0 to 1", f)
	}
	bp := math.Round(f * float64(FullWeight))
	if math.Abs(bp-f*float64(FullWeight)) > 1e-6 {
		return 0, fmt.Errorf("weight %v: want a multiple of 0.0001", f)
	}
	return Weight(bp), nil
}

// Fraction is the weight as a share in [0,1].
func (w Weight) Fraction() float64 { return float64(w) / float64(FullWeight) }

// String is the weight in percent, such as "5%" or "0.25%".
func (w Weight) String() string {
	return strconv.FormatFloat(float64(w)/100, 'f', -1, 64) + "%"
}

// MarshalJSON writes the weight as a fraction.
func (w Weight) MarshalJSON() ([]byte, error) { return json.Marshal(w.Fraction()) }

// UnmarshalJSON reads a fraction; see WeightFromFraction for what is refused.
func (w *Weight) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("weight %s: want a fraction from 0 to 1", b)
	}
	v, err := WeightFromFraction(f)
	if err != nil {
		return err
	}
	*w = v
	return nil
}

// Duration is a time.Duration that is written as text ("30m", "24h") on the wire.
type Duration time.Duration

// Std is the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the duration without zero units: "30m", "1h30m", "0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if n := len(s); n > 2 && s[n-2:] == "0s" && s[n-3] == 'm' {
		s = s[:n-2]
	}
	if n := len(s); n > 2 && s[n-2:] == "0m" && s[n-3] == 'h' {
		s = s[:n-2]
	}
	return s
}

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads text such as "90s" or "24h".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration %s: want text such as \"30m\" or \"24h\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration %q: want text such as \"30m\" or \"24h\"", s)
	}
	*d = Duration(v)
	return nil
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// NamePattern is what ValidName allows, for messages.
const NamePattern = `[a-z0-9][a-z0-9._-]{0,62}`

// ValidName reports whether s may name an agent, a version, a stage or a target.
func ValidName(s string) bool { return name.MatchString(s) }
