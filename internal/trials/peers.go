package trials

import "time"

// named is a rule with the name it has in tables.
type named struct {
	name string
	rule Rule
	from time.Duration // the first time at which it can roll back, 0 for any
	to   time.Duration // the last one, 0 for any
}

// peers are the rules of other tools, with the same limits.
func peers(limits []limit) []named {
	const least = 100
	out := []named{{name: "raw ratio at each poll, from 100 canary requests on", rule: &eachPoll{newWindow(limits), least}}}
	for _, end := range horizons {
		out = append(out, named{name: rawAtEnd, rule: &atEnd{newWindow(limits), end}, from: end, to: end})
	}
	return append(out,
		named{name: "failed checks (every minute, threshold 5)", rule: &failedChecks{window: newWindow(limits), every: time.Minute, threshold: 5}},
		named{name: "failure limit (every 5 min, limit 3)", rule: newFailureLimit(limits)},
		named{name: "Mann–Whitney judge (hourly, last 60 min)", rule: newJudge(limits, 60, week)},
		named{name: "Mann–Whitney judge (hourly, growing, 24 h)", rule: newJudge(limits, 0, day), to: day},
		named{name: "z-test peeked at each poll (p < 0.01, errors only)", rule: newPeeking(limits, alpha)},
		named{name: "asymptotic confidence sequence (errors only)", rule: &asymptotic{newWindow(limits), alpha / float64(len(limits))}},
	)
}

const rawAtEnd = "raw ratio, once at the end"

// horizons are the times by which false rollbacks are counted.
var horizons = []time.Duration{hour, day, week}
