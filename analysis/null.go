package analysis

// Null is a limit as a test sees it: the canary's rate or mean is at most A + B·stable's, or at least that.
type Null struct {
	A, B float64
	// Failures: the rate is that of a ratio's trials without the event, or of a quantile's observations below the threshold.
	Failures bool
	// Counted: the rate is one of counted events, of which several may fall on a trial.
	Counted bool
	// AtLeast: a mean is limited from below. Rates are always limited from above.
	AtLeast bool
	// Scale: of a quantile relative to stable, whose rates are of observations beyond a threshold, the canary's threshold over stable's, which is its
	// quantile. 0 otherwise.
	Scale float64
	// Threshold: of a quantile by itself, whose rate is of the observations beyond it.
	Threshold float64
}

// Tested is a check that has a sequential test.
type Tested struct {
	RoleCheck
	Metric Metric
	Share  float64 // of alpha, for the limits of its metric that are nested together, in (0,1]
	Phi    float64 // overdispersion, 1 or more: evidence is divided by it
	// OnLadder: the regressions that are ruled out are bracketed by a ladder.
	OnLadder bool
}

// Tested are the checks that have a sequential test, with how they share alpha, in the order of the findings: those of an engine. There
// are none where the method is the raw rule. Errors: as Validate.
func (c Config) Tested() ([]Tested, error) {
	e, err := New(c)
	if err != nil {
		return nil, err
	}
	var out []Tested
	for _, a := range e.asked {
		if a.test != nil {
			out = append(out, Tested{
				RoleCheck: a.RoleCheck, Metric: a.meter.metric, Share: a.test.group.share, Phi: a.test.limit.phi, OnLadder: a.isOnLadder(),
			})
		}
	}
	return out, nil
}

// Null is what a check on a metric tests: evidence against limit takes the canary back, evidence against the opposite of proof shows that it keeps
// the limit. They differ by the metric's cohort spread. It is false for a check without a sequential test.
func (c Config) Null(check Check, m Metric) (limit, proof Null, tested bool) {
	if c.Method != Sequential || !check.isTested(m) {
		return Null{}, Null{}, false
	}
	mt := &meter{metric: m}
	against, opposite := newHypothesis(check, mt, c, worse), newHypothesis(check, mt, c, within)
	return against.null(), opposite.null(), true
}

func (h *hypothesis) null() Null {
	if h.meter.metric.Kind == Mean {
		return Null{A: h.mean.a, B: h.mean.b, AtLeast: h.mean.sign < 0}
	}
	n := Null{A: h.rate.a, B: h.rate.b, Failures: h.failures, Counted: h.rate.counted, Scale: h.scale}
	if h.meter.metric.Kind == Quantile && h.scale == 0 {
		n.Threshold = h.limit
	}
	return n
}

// Rung is the change that a check on a ladder has to have ruled out, or less, before a stage is passed, where stable's value of the metric is known:
// with advance ladder, and below the last of the stages in which both versions have traffic. It is false where there is none, so that the limit
// itself has to be shown, or nothing yet.
func (c Config) Rung(check Check, stage int, m Metric, stable float64) (change float64, ok bool) {
	if c.Advance != AdvanceLadder || stage >= c.Stages-1 || check.Change == "" || !check.Op.isUpper() {
		return 0, false
	}
	asked := check.rungAfter(stage, c.Stages, m, stable)
	changes := rises
	if !check.rises(m) {
		changes = falls
	}
	for _, rung := range changes {
		if rung <= asked {
			change, ok = rung, rung > 0
		}
	}
	return change, ok
}

// IsRule reports whether the check is a rule on counted events: no test, and broken by the first event too many.
func (c Check) IsRule(m Metric) bool { return c.isRule(m) }

// Rises reports whether more of the named change is more of the metric.
func (c Check) Rises(m Metric) bool { return c.rises(m) }

// Caps reports whether the check bounds the canary from above.
func (c Check) Caps(m Metric) bool { return c.caps(m) }
