package simulate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Scenario is a world as people write it.
type Scenario struct {
	RPS         float64  // of both versions together, above 0
	Diurnal     float64  // 0 to 1
	Bases       []string // METRIC=NUMBER
	Regressions []string // METRIC=CHANGE[@WHEN]
	Incidents   []string // ARM[:METRIC=CHANGE][@WHEN[+LENGTH]]
	Signals     []string // SIGNAL@WHEN
}

// What the forms are, for messages and help.
const (
	BaseForm       = "METRIC=NUMBER, such as error_rate=0.02"
	RegressionForm = "METRIC=CHANGE[@WHEN], such as error_rate=2x@day3, p95_latency=+50%, task_completion_rate=-5%, task_completion_rate=1.5x (failures), safety_violations=0.001@6h"
	IncidentForm   = "ARM[:METRIC=CHANGE][@WHEN[+LENGTH]], such as both, both:error_rate=30x@day1+2h, canary:p95_latency=3x@90m; ARM is both, stable or canary"
	SignalForm     = "SIGNAL@WHEN, such as pause@2h, resume@3h, abort@day1"
)

// What an incident is where nothing more is said.
const (
	incidentFactor = 30
	incidentLength = 2 * time.Hour
	incidentAt     = 0.25 // of the rollout's own duration
)

// Options are those of a rollout in the scenario. All that is wrong is said at once, each with where it stands and what is allowed.
func (sc Scenario) Options(spec rollout.Spec) (Options, error) {
	w, err := For(spec)
	if err != nil {
		return Options{}, err
	}
	r := reader{world: &w, spec: spec}
	w.RPS, w.Diurnal = sc.RPS, sc.Diurnal
	if !(w.RPS > 0 && w.RPS <= mostRPS) {
		r.wrong("--rps", "%g: want requests a second above 0 and up to %g", sc.RPS, float64(mostRPS))
	}
	if !(w.Diurnal >= 0 && w.Diurnal <= 1) {
		r.wrong("--diurnal", "%g: want a share of the traffic from 0 to 1", sc.Diurnal)
	}
	for _, text := range sc.Bases {
		r.base(text)
	}
	for _, text := range sc.Regressions {
		r.regression(text)
	}
	for _, text := range sc.Incidents {
		r.incident(text)
	}
	o := Options{Spec: spec}
	for _, text := range sc.Signals {
		o.Signals = append(o.Signals, r.signal(text))
	}
	if len(r.errs) == 0 {
		if err := w.Validate(); err != nil {
			r.errs = append(r.errs, err)
		}
	}
	o.World = w
	return o, errors.Join(r.errs...)
}

// mostRPS bounds the traffic: beyond it nothing is learnt.
const mostRPS = 1e5

// reader reads a scenario into a world.
type reader struct {
	world *world.World
	spec  rollout.Spec
	errs  []error
	plain []string // the metrics with a regression that is a plain number
}

func (r *reader) wrong(where, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s "+format, append([]any{where}, args...)...))
}

// metric is the world's metric of a name, or nil once it has been said that there is none.
func (r *reader) metric(where, name string) *world.Metric {
	if name == "task_completion" {
		name = "task_completion_rate"
	}
	m := r.world.Metric(name)
	if m == nil {
		r.wrong(where, "%q is no metric that this rollout asks about: want one of %s", name, strings.Join(names(*r.world), ", "))
	}
	return m
}

func (r *reader) base(text string) {
	name, number, found := strings.Cut(text, "=")
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !found || err != nil || math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
		r.wrong("--base", "%q: want %s", text, BaseForm)
		return
	}
	m := r.metric("--base", strings.TrimSpace(name))
	if m == nil {
		return
	}
	if m.Kind == analysis.Ratio && x > 1 {
		r.wrong("--base", "%q: %s is a share, want 0 to 1", text, m.Name)
		return
	}
	if m.Ratings != nil && x != m.Base { // the shares of the ratings no longer fit
		m.Ratings, m.Spread = nil, 0.3
	}
	if m.Kind == analysis.Quantile { // the world goes by the median
		x /= QuantileOf(*m) / m.Base
	}
	m.Base = x
}

// QuantileOf is the quantile itself of a metric that is one, in seconds: that of a lognormal by its median and sigma.
func QuantileOf(m world.Metric) float64 {
	return m.Base * math.Exp(m.Spread*math.Sqrt2*math.Erfinv(2*m.Quantile-1))
}

func (r *reader) regression(text string) {
	what, when, late := strings.Cut(text, "@")
	m, factor, ok := r.change("--regression", what, RegressionForm)
	from, err := time.Duration(0), error(nil)
	if late {
		from, err = parseWhen(when)
	}
	if err != nil {
		r.wrong("--regression", "%q: %v", text, err)
	}
	if !ok || err != nil {
		return
	}
	if !strings.HasSuffix(what, "x") && !strings.HasSuffix(what, "%") {
		if slices.Contains(r.plain, m.Name) {
			r.wrong("--regression", "%q: there is a number for %s already, and both would count: want one, or factors such as 2x", text, m.Name)
			return
		}
		r.plain = append(r.plain, m.Name)
	}
	r.world.Regressions = append(r.world.Regressions, world.Regression{Metric: m.Name, Factor: factor, From: from})
}

func (r *reader) incident(text string) {
	what, when, timed := strings.Cut(text, "@")
	arm, change, changes := strings.Cut(what, ":")
	if !slices.Contains([]world.Arm{world.Both, world.Stable, world.Canary}, world.Arm(arm)) {
		r.wrong("--incident", "%q: want %s", text, IncidentForm)
		return
	}
	if !changes {
		change = "error_rate=" + strconv.Itoa(incidentFactor) + "x"
	}
	m, factor, ok := r.change("--incident", change, IncidentForm)
	from := time.Duration(incidentAt * float64(r.duration()))
	to, err := from+incidentLength, error(nil)
	if timed {
		at, length, long := strings.Cut(when, "+")
		if from, err = parseWhen(at); err == nil && long {
			var d time.Duration
			d, err = parseWhen(length)
			to = from + d
		} else {
			to = from + incidentLength
		}
	}
	if err != nil {
		r.wrong("--incident", "%q: %v", text, err)
	}
	if ok && err == nil {
		r.world.Incidents = append(r.world.Incidents, world.Incident{Arm: world.Arm(arm), Metric: m.Name, Factor: factor, From: from, To: to})
	}
}

// duration is how long the stages last at least.
func (r *reader) duration() time.Duration {
	var sum time.Duration
	for _, stage := range r.spec.Stages {
		sum += stage.Duration.Std()
	}
	return sum
}

// change reads METRIC=CHANGE as a factor on what is bad of the metric: 2x is one, +50% and a plain number are of the metric itself.
func (r *reader) change(where, text, form string) (*world.Metric, float64, bool) {
	name, change, found := strings.Cut(text, "=")
	if !found {
		r.wrong(where, "%q: want %s", text, form)
		return nil, 0, false
	}
	m := r.metric(where, strings.TrimSpace(name))
	if m == nil {
		return nil, 0, false
	}
	change = strings.TrimSpace(change)
	number, times := strings.CutSuffix(change, "x")
	percent := false
	if !times {
		number, percent = strings.CutSuffix(change, "%")
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		r.wrong(where, "%q: %q is no change, want 2x, +50%% or the number itself", text, change)
		return nil, 0, false
	}
	share := m.Kind == analysis.Ratio
	upwards := share && m.Better == analysis.Higher // what is bad of it is what is missing to all
	bad := m.Base
	if upwards {
		bad = 1 - m.Base
	}
	factor := x
	switch {
	case (times || percent && !upwards) && bad == 0:
		r.wrong(where, "%q: %s has a base of %s, and a factor of nothing is nothing: want the number itself, such as %s=%s", text, m.Name, rounded(m.Base), m.Name,
			rounded(math.Abs(m.Base-0.01)))
		return nil, 0, false
	case times:
	case !percent && share && (x < 0 || x > 1):
		r.wrong(where, "%q: %s is a share, want 0 to 1, or a factor such as 2x", text, m.Name)
		return nil, 0, false
	default:
		to := x
		switch {
		case percent:
			to = m.Base * (1 + x/100)
		case m.Kind == analysis.Quantile:
			to = x / (QuantileOf(*m) / m.Base)
		}
		if upwards {
			to = 1 - min(1, to)
		}
		if bad == 0 && to > 0 { // no factor makes something of nothing: stable gets a rate that is as good as none
			bad = to / outOfNothing
			if m.Base = bad; upwards {
				m.Base = 1 - bad
			}
		}
		if factor = 1; bad > 0 {
			factor = to / bad
		}
	}
	if factor < 0 || math.IsNaN(factor) || math.IsInf(factor, 0) {
		r.wrong(where, "%q: that is below nothing, want 0 or more", text)
		return nil, 0, false
	}
	return m, factor, true
}

func rounded(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }

// outOfNothing is the factor that makes a rate out of none.
const outOfNothing = 1e6

func (r *reader) signal(text string) Signal {
	name, when, found := strings.Cut(text, "@")
	known := []rollout.Signal{
		rollout.SignalPause, rollout.SignalResume, rollout.SignalAbort, rollout.SignalApprove, rollout.SignalPromote, rollout.SignalViolation,
	}
	if !found || !slices.Contains(known, rollout.Signal(name)) {
		r.wrong("--signal", "%q: want %s; SIGNAL is one of %v", text, SignalForm, known)
		return Signal{}
	}
	at, err := parseWhen(when)
	if err != nil {
		r.wrong("--signal", "%q: %v", text, err)
	}
	return Signal{Signal: rollout.Signal(name), At: at}
}

// longest is the last moment that can be named.
const longest = 366 * 24 * time.Hour

// parseWhen reads a time since the start: day3 is the beginning of the fourth day, 72 h; else 90m, 36h, 3d.
func parseWhen(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	days, isDay := strings.CutPrefix(text, "day")
	if !isDay {
		days, isDay = strings.CutSuffix(text, "d")
	}
	var d time.Duration
	if isDay {
		x, err := strconv.ParseFloat(days, 64)
		if err != nil || !(x >= 0 && x <= longest.Hours()/24) {
			return 0, fmt.Errorf("%q is no time, want day0 to day366, such as day3 for 72h", text)
		}
		return time.Duration(x * 24 * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longest {
		return 0, fmt.Errorf("%q is no time since the start, want day3, 36h or 90m", text)
	}
	return d, nil
}
