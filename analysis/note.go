package analysis

import (
	"fmt"
	"math"
)

// note says a finding in one sentence.
func (v *evaluation) note(a *asked, c comparison, f Finding) string {
	switch {
	case f.Verdict == NoData:
		return fmt.Sprintf("No data: %s.", c.why)
	case f.Verdict == Undecided && c.unclear:
		return fmt.Sprintf("Unclear: %s.", c.why)
	}
	lately := ""
	if f.Lately {
		lately = "Lately: "
	}
	return lately + sayNumbers(a, c) + "; " + v.sayVerdict(a, c, f) + "."
}

// sayNumbers says what was measured.
func sayNumbers(a *asked, c comparison) string {
	switch {
	case !c.ok:
		return "This stage has no numbers yet"
	case a.meter.metric.Name == TotalRequests:
		return fmt.Sprintf("%s canary requests in this stage", number(c.value))
	case a.meter.metric.Kind == Count && a.Check.Change == "":
		return fmt.Sprintf("%s counted on the canary", number(c.value))
	case a.Check.Change == "":
		return fmt.Sprintf("The canary's value is %s%s", atLeast(c), number(c.canary.value))
	case math.IsInf(c.change, 0):
		return fmt.Sprintf("Stable has 0, the canary %s", number(c.canary.value))
	}
	return fmt.Sprintf("Stable has %s, the canary %s%s, a change of %+.3g %%", number(c.stable.value), atLeast(c), number(c.canary.value),
		100*(c.canary.value-c.stable.value)/math.Abs(orOne(c.stable.value)))
}

func atLeast(c comparison) string {
	if c.canary.least {
		return "at least "
	}
	return ""
}

func orOne(x float64) float64 {
	if x == 0 {
		return 1
	}
	return x
}

// sayVerdict says what follows.
func (v *evaluation) sayVerdict(a *asked, c comparison, f Finding) string {
	byEvidence := a.test != nil
	switch {
	case f.Verdict == Violated && f.Safety:
		return "a rule that holds from the first event on is broken"
	case f.Verdict == Violated && byEvidence:
		return fmt.Sprintf("the evidence is enough that the limit is broken (e-value %s)", number(f.EValue))
	case f.Verdict == Violated && v.cfg.Method == Sequential:
		return fmt.Sprintf("beyond the limit at %d polls in a row, by threshold: a plain value has no test and is not covered by alpha", valueStreak)
	case f.Verdict == Violated:
		return "beyond the limit"
	case f.Verdict == Met && byEvidence && v.cfg.Advance != AdvanceEstimate:
		return v.sayProof(a)
	case f.Verdict == Met && c.allowed > 0:
		return fmt.Sprintf("within what the floor allows, %s", number(c.allowed)) + v.byThreshold(a)
	case f.Verdict == Met:
		return "within the limit" + v.byThreshold(a)
	case byEvidence && c.holds:
		return "within the limit, but that is not shown yet" + more(f.Needed)
	case byEvidence:
		return fmt.Sprintf("beyond the limit, but that may be chance (e-value %s)%s", number(f.EValue), more(f.Needed))
	case v.requests.Canary < v.least && a.meter.metric.Name != TotalRequests:
		return fmt.Sprintf("beyond the limit, after %s of at least %s canary requests", number(v.requests.Canary), number(v.least))
	}
	return "not within the limit yet" + v.byThreshold(a) + more(f.Needed)
}

// sayProof says what was shown.
func (v *evaluation) sayProof(a *asked) string {
	switch _, upper := a.interval(); {
	case a.test.proven:
		return "shown to be within the limit"
	case a.isOnLadder():
		return fmt.Sprintf("a change of %.3g %% and more is ruled out, which is enough for this stage", 100*upper)
	}
	return "within the limit, to be shown after the last stage"
}

// byThreshold says where the sequential method has no test.
func (v *evaluation) byThreshold(a *asked) string {
	if v.cfg.Method == Sequential && a.meter.metric.Kind == Value {
		return " (by threshold: a plain value has no test)"
	}
	return ""
}

func more(needed float64) string {
	if math.IsNaN(needed) {
		return ""
	}
	return fmt.Sprintf(", about %.0f more canary requests needed", needed)
}
