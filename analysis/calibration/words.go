package calibration

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// muchPhi is a φ that more likely speaks of outages than of bursts.
const muchPhi = 20

// warn puts into words what should be acted on.
func (c *calibration) warn() {
	say := func(format string, args ...any) {
		c.out.Warnings = append(c.out.Warnings, fmt.Sprintf(format, args...))
	}
	for _, t := range c.out.Tightness {
		natural := "with so few events that any change happens"
		if t.Natural != nil {
			natural = "±" + percent(*t.Natural) + " %"
		}
		say("%s is tighter than what chance does to identical versions in stage %s (%s): %.0f of %d replays ended beyond it: expect held stages",
			t.Check, t.Stage, natural, math.Round(t.Beyond*float64(c.out.Replays.Count)), c.out.Replays.Count)
	}
	if r := c.out.Replays; !r.Settled {
		say("identical versions are still doubted in %s %% of the replays, want at most 5 %%: something other than chance tells the pseudo-arms apart, "+
			"such as units that differ for good or troubles of the whole service", percent(r.Used.Doubtful))
	}
	if r := c.out.Replays; r.Scale < 1 {
		say("the history is shorter than the rollout: stages were replayed at %s %% of their durations, so detection times are those of a shorter rollout", percent(r.Scale))
	} else if r.Separate < 3 {
		say("only %s rollouts fit into the history side by side, so the replays repeat themselves: want at least three times the rollout", short(r.Separate))
	}
	if c.out.Frozen > 0 {
		say("freeze_when held for %s %% of the time, which is left out of φ", percent(c.out.Frozen))
	}
	for _, m := range c.out.Metrics {
		c.warnMetric(m, say)
	}
	for _, b := range c.out.Buckets {
		c.warnBucket(b, say)
	}
	if c.By != Users {
		say("cohort spread is not known and left out: the history does not tell users apart")
	}
	for _, m := range c.rollout.Config.Metrics {
		if m.Kind == analysis.Value {
			say("%s is a plain value: it has no history, and is by threshold only", m.Name)
		}
	}
}

func (c *calibration) warnMetric(m Metric, say func(string, ...any)) {
	switch {
	case m.Base == nil:
		say("%s has no data in the history: its checks were not replayed", m.Name)
		return
	case m.Tested && m.Phi == nil:
		say("φ of %s could not be measured: too few events in %s, want at least %d blocks of a minute or more with some", m.Name, days(c.out.Days), leastBlocks)
	case m.Tested && m.Used > *m.Phi:
		say("φ of %s was raised from %s to %s: with less, identical versions were doubted too often", m.Name, short(*m.Phi), short(m.Used))
	}
	if m.Phi != nil && *m.Phi > mostPhi {
		say("φ of %s is beyond the %d that can be set, which is used: with it hardly anything can be told", m.Name, mostPhi)
	}
	if m.Phi != nil && *m.Phi > muchPhi {
		say("φ of %s is %s, and evidence takes as many times the requests: if the history holds outages of everybody, name them in freeze_when%s",
			m.Name, short(*m.Phi), map[bool]string{true: ", or tell units apart"}[c.By == Whole])
	}
	if m.Cohort != nil && *m.Cohort > mostSpread {
		say("cohorts of users differ in %s by a factor of %s and more: with so few users a canary can't be told from chance", m.Name, short(math.Exp(*m.Cohort)))
	}
	if m.Fires != nil && *m.Base > 0 {
		say("%s happens to the present version too, once in %s requests: identical versions break a rule of 0 in %s %% of all rollouts; "+
			"want a limit relative to stable instead", m.Name, short(1 / *m.Base), percent(*m.Fires))
	}
}

func (c *calibration) warnBucket(b Coarse, say func(string, ...any)) {
	width := "has no upper bound"
	switch {
	case b.Width != nil:
		width = fmt.Sprintf("is %s %% wide", percent(*b.Width))
	case b.High != nil:
		width = "begins at 0"
	}
	bounds := ""
	for i, a := range b.Add {
		if i > 0 {
			bounds += ", "
		}
		bounds += short(a)
	}
	say("the bucket of %s that holds %s %s, want at most %s %%: add the bounds %s", b.Metric, short(b.At), width, percent(b.Want), bounds)
}

// percent writes a share with two digits that count, without the sign.
func percent(x float64) string {
	if x >= 0.995 {
		return strconv.FormatFloat(x*100, 'f', 0, 64)
	}
	return strconv.FormatFloat(x*100, 'g', 2, 64)
}

func short(x float64) string {
	if x >= 1000 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

func days(d float64) string {
	return time.Duration(d * 24 * float64(time.Hour)).Round(time.Second).String()
}
