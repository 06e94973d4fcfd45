package cli

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// absent is what stands where there is no number.
const absent = "·"

// number writes f with three digits that count, and whole numbers in full with thousands apart.
func number(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return absent
	case math.Abs(f) >= 1e15:
		return strconv.FormatFloat(f, 'g', 3, 64)
	case math.Abs(f) >= 100 || f == math.Trunc(f):
		return thousands(strconv.FormatFloat(math.Round(f), 'f', 0, 64))
	case math.Abs(f) < 1e-4:
		return strconv.FormatFloat(f, 'g', 3, 64)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(f))))
	return trim(strconv.FormatFloat(f, 'f', digits, 64))
}

// trim drops zeros at the end of a decimal fraction.
func trim(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// percent writes a share as percent: 0.0213 is "2.13%".
func percent(f float64) string { return number(f*100) + "%" }

// inUnits writes a value of a metric in the unit its name implies: percent for rates, time for latencies (given in seconds), dollars for costs.
func inUnits(metric string, f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return absent
	case strings.HasSuffix(metric, "_rate"):
		return percent(f)
	case strings.HasSuffix(metric, "_latency"), metric == "time_to_first_token":
		return seconds(f)
	case strings.HasPrefix(metric, "cost_"):
		return "$" + number(f)
	}
	return number(f)
}

func seconds(f float64) string {
	if math.Abs(f) >= 1 {
		return number(f) + "s"
	}
	if math.Abs(f) < 1e-3 {
		return (time.Duration(f*1e9) * time.Nanosecond).String()
	}
	return number(f*1000) + "ms"
}

// estimate writes one version's side of a piece of evidence.
func estimate(metric string, a rollout.Arm) string {
	if a.Estimate == nil {
		return absent
	}
	return inUnits(metric, *a.Estimate)
}

// change writes a relative change with its sign.
func change(c *float64) string {
	switch {
	case c == nil || math.IsNaN(*c) || math.IsInf(*c, 0):
		return absent
	case *c > 0:
		return "+" + percent(*c)
	case *c == 0:
		return "0%"
	}
	return percent(*c)
}

// optional writes a number that evidence may lack.
func optional(f *float64) string {
	if f == nil {
		return absent
	}
	return number(*f)
}

// checkForm takes a check apart: what it is about, and how that is compared.
var checkForm = regexp.MustCompile(`^\s*(\w+?)((?:_increase|_decrease|_drop|_regression)?)\s*(<=|>=|==|<|>)`)

// limit writes what a check demands, such as "< 10%" of "error_rate_increase < 0.10". A check relative to stable is in percent,
// any other in the metric's unit.
func limit(e rollout.Evidence) string {
	m := checkForm.FindStringSubmatch(e.Check)
	switch {
	case m == nil:
		return inUnits(e.Metric, e.Limit)
	case m[2] != "":
		return m[3] + " " + percent(e.Limit)
	}
	return m[3] + " " + inUnits(e.Metric, e.Limit)
}

// subject is what a check is about: the word on its left.
func subject(e rollout.Evidence) string {
	if m := checkForm.FindStringSubmatch(e.Check); m != nil {
		return m[1] + m[2]
	}
	return e.Check
}
