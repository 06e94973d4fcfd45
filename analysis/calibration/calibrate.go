package calibration

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

const (
	leastReplays = 100
	mostRounds   = 8
	doubtful     = 20.0 // an e-value that identical versions reach in at most 1/20 of all rollouts: Ville's inequality
	mostDoubtful = 0.05
	mostPhi      = 1000
	mostSpread   = 1.0  // beyond, a limit would be thirteen times what was asked for: nothing could be told
	heldTooOften = 0.10 // of identical versions, beyond a limit at the end of a stage
)

// Calibrate learns from a history what a rollout's analysis needs to know. Errors: a rollout that can't be replayed, or a history without
// any of its metrics.
func Calibrate(h *History, r Rollout, o Options) (*Result, error) {
	o.fill()
	if err := r.validate(); err != nil {
		return nil, err
	}
	if h.Polls < leastBlocks {
		return nil, fmt.Errorf("the history has %d polls, want at least %d", h.Polls, leastBlocks)
	}
	own := *h // frozen is not the caller's
	p := newPlayer(&own, r, o.Polls, o.Seed)
	if p.length < 1 {
		return nil, fmt.Errorf("a poll of the history, %s, is longer than the rollout, want shorter ones", h.Step)
	}
	c := &calibration{History: &own, rollout: r, options: o, player: p, out: &Result{
		From: h.From, Days: h.Span().Hours() / 24, Step: h.Step.Seconds(), By: h.By, Units: len(h.Units), Traffic: h.traffic(),
		Overdispersion: map[string]float64{}, CohortSpread: map[string]float64{},
	}}
	if h.By == Users {
		c.out.Units = len(h.Users)
	}
	var err error
	if own.frozen, err = c.frozen(); err != nil {
		return nil, err
	}
	c.measure()
	c.cfg = r.replayed(h, p.polls)
	if len(c.cfg.Checks) == 0 {
		return nil, fmt.Errorf("the history from %s has none of the metrics that the rollout tests", h.From.Format(time.RFC3339))
	}
	if err := c.replay(); err != nil {
		return nil, err
	}
	if err := c.promise(); err != nil {
		return nil, err
	}
	c.buckets()
	c.warn()
	return c.out, nil
}

func (o *Options) fill() {
	o.Replays = max(o.Replays, leastReplays)
	if o.Promises == 0 {
		o.Promises = 30
	}
	if o.Polls == 0 {
		o.Polls = 2000
	}
	if o.Factors == nil {
		o.Factors = []float64{1.2, 1.5, 2, 5}
	}
}

// calibration is one Calibrate.
type calibration struct {
	*History
	rollout Rollout
	options Options
	player  *player
	cfg     analysis.Config
	out     *Result
}

// measure is base rates, φ and s_u of every metric.
func (c *calibration) measure() {
	for i, m := range c.History.Metrics {
		asked := slices.ContainsFunc(c.rollout.Config.Metrics, func(o analysis.Metric) bool { return o.Name == m.Name })
		if m.Name == analysis.TotalRequests || m.Kind == analysis.Value || !asked {
			continue
		}
		rng := rand.New(rand.NewPCG(c.options.Seed, uint64(i)))
		t := c.total(i)
		out := Metric{Name: m.Name, Trials: t.N, Used: 1}
		if t.N > 0 {
			out.Base, out.Share = known(c.base(i)), ratio(t.N, c.requests(0, c.Polls))
			out.Deviation, out.Width = c.deviation(i)
			if c.rollout.tests(m) {
				c.vary(i, &out, rng)
			}
			if m.Kind == analysis.Count {
				out.Fires = c.fires(m, *out.Base)
			}
		}
		c.out.Metrics = append(c.out.Metrics, out)
	}
}

// vary is φ and s_u of a metric.
func (c *calibration) vary(metric int, out *Metric, rng *rand.Rand) {
	d := c.dispersion(metric, rng)
	out.Tested, out.Phi, out.Blocks, out.Split = true, known(d.Phi), d.Blocks, d.Split
	if out.Phi != nil {
		out.Used = min(mostPhi, *out.Phi)
	}
	out.Cohort = known(c.cohortSpread(metric, c.rollout.leastWeight(), leastPhi(d)))
}

// leastPhi is φ without its margin: what sampling adds to a cohort's ratio is not to be overstated.
func leastPhi(d Dispersion) float64 {
	phi := 1.0
	for _, b := range d.Blocks {
		phi = max(phi, b.Phi)
	}
	return phi
}

// fires is the chance that identical versions break a rule on counted events during the rollout, 1−(1−q)^n; nil where there is no rule that
// forbids all.
func (c *calibration) fires(m analysis.Metric, q float64) *float64 {
	for _, rc := range c.rollout.Config.Checks {
		if rc.Check.Metric != m.Name || tested(rc.Check, m) || rc.Check.Limit != 0 {
			continue
		}
		n := 0.0
		for _, s := range c.rollout.Stages {
			n += c.out.Traffic.Mean * s.Duration.Seconds() * float64(s.Weight) / full
		}
		return known(-math.Expm1(n * math.Log1p(-min(q, 1-1e-12))))
	}
	return nil
}

// known is a number, or nil for NaN.
func known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// replay judges pseudo-rollouts, and raises φ until identical versions are doubted as seldom as is promised.
func (c *calibration) replay() error {
	c.set()
	r := Replays{Count: c.options.Replays, Scale: c.player.scale, Separate: float64(c.Polls) / float64(c.player.length)}
	var runs []verdicts
	for {
		var err error
		if runs, err = c.player.replayAll(c.cfg, r.Count, nil, false); err != nil {
			return err
		}
		r.Used = c.rates(runs)
		if r.Rounds == 0 {
			r.Measured = r.Used
		}
		r.Settled = r.Used.Doubtful <= mostDoubtful
		if r.Settled || r.Rounds == mostRounds || !c.raise(runs) {
			break
		}
		r.Rounds++
		c.set()
	}
	c.tight(runs)
	raw := c.cfg
	raw.Method, raw.Advance = analysis.Threshold, analysis.AdvanceEstimate
	byThreshold, err := c.player.replayAll(raw, r.Count, nil, true)
	if err != nil {
		return err
	}
	r.Threshold = c.rates(byThreshold).TakenBack
	c.out.Replays = r
	return nil
}

// set puts what is known into the configuration and into the result.
func (c *calibration) set() {
	for _, m := range c.out.Metrics {
		if m.Used > 1 {
			c.out.Overdispersion[m.Name] = m.Used
		}
		if m.Cohort != nil && *m.Cohort > 0 {
			c.out.CohortSpread[m.Name] = min(mostSpread, *m.Cohort)
		}
	}
	inUse := func(all map[string]float64) map[string]float64 {
		out := map[string]float64{}
		for _, m := range c.cfg.Metrics {
			if v, ok := all[m.Name]; ok {
				out[m.Name] = v
			}
		}
		return out
	}
	c.cfg.Overdispersion, c.cfg.CohortSpread = inUse(c.out.Overdispersion), inUse(c.out.CohortSpread)
}

// metricsOf are the metrics that evidence was gathered on, in order.
func metricsOf(runs []verdicts) []string {
	names := map[string]bool{}
	for _, r := range runs {
		for name := range r.byMetric {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func mostOf(runs []verdicts, metric string) []float64 {
	out := make([]float64, len(runs))
	for i, r := range runs {
		out[i] = r.byMetric[metric]
	}
	return out
}

func (c *calibration) rates(runs []verdicts) Rates {
	back, most := 0, make([]float64, len(runs))
	for i, r := range runs {
		most[i] = r.most
		if r.takenBack {
			back++
		}
	}
	out := Rates{TakenBack: float64(back) / float64(len(runs)), AtMost: clopperPearson(back, len(runs)), Doubtful: share(most, doubtful)}
	for _, metric := range metricsOf(runs) {
		out.Doubtful = max(out.Doubtful, share(mostOf(runs, metric), doubtful))
	}
	return out
}

// clopperPearson is the one-sided 95 % upper limit of a share.
func clopperPearson(k, n int) float64 {
	if k >= n {
		return 1
	}
	return distuv.Beta{Alpha: float64(k) + 1, Beta: float64(n - k)}.Quantile(0.95)
}

// raise enlarges φ of the metrics that are doubted too often, or, when only their sum is, of those that are doubted most. Evidence in logarithms
// is divided by φ, which says by about how much. It reports whether it changed anything.
func (c *calibration) raise(runs []verdicts) bool {
	changed := false
	for _, limit := range []float64{mostDoubtful, 0} {
		for i := range c.out.Metrics {
			m := &c.out.Metrics[i]
			values := mostOf(runs, m.Name)
			if share(values, doubtful) <= limit || m.Used >= mostPhi {
				continue
			}
			by := math.Log(upperQuantile(values, 1-mostDoubtful)) / math.Log(doubtful)
			m.Used = min(mostPhi, m.Used*min(4, max(1.2, by)))
			changed = true
		}
		if changed {
			break
		}
	}
	return changed
}

// tight says which limits identical versions exceed by chance.
func (c *calibration) tight(runs []verdicts) {
	for i, s := range c.player.stages {
		var seen []string
		for _, rc := range c.cfg.Checks {
			key := asked{i, rc.Check.Text}
			if slices.Contains(seen, key.check) {
				continue
			}
			seen = append(seen, key.check)
			var sizes []float64
			beyond := 0
			for _, r := range runs {
				if change, ok := r.changes[key]; ok {
					sizes = append(sizes, math.Abs(change))
				}
				if r.beyond[key] {
					beyond++
				}
			}
			if out := float64(beyond) / float64(len(runs)); out > heldTooOften {
				c.out.Tightness = append(c.out.Tightness, Tight{Check: key.check, Stage: s.Name, Natural: known(upperQuantile(sizes, 0.95)), Beyond: out})
			}
		}
	}
}

// promise injects regressions and says when they are caught.
func (c *calibration) promise() error {
	for _, m := range c.cfg.Metrics {
		i := c.index(m.Name)
		limit := c.rollout.tightest(m, c.base(i))
		if math.IsInf(limit, 1) {
			continue
		}
		for _, factor := range c.options.Factors {
			p := Promise{Metric: m.Name, Factor: factor, Allowed: !(factor > limit), Poll: c.pollSeconds()}
			if !p.Allowed {
				runs, err := c.player.replayAll(c.cfg, c.options.Promises, newWorsening(c.History, i, factor), true)
				if err != nil {
					return err
				}
				p.fill(runs)
			}
			c.out.Promises = append(c.out.Promises, p)
		}
	}
	return nil
}

// pollSeconds is how long a poll of the first stage is in the pseudo-rollouts.
func (c *calibration) pollSeconds() float64 {
	r := c.player.start(0, nil)
	s := r.stages[0]
	return float64(max(s.joined, r.turn(s).of)) * c.Step.Seconds()
}

// fill takes the median and the 90th percentile; those that were not caught count as later than all.
func (p *Promise) fill(runs []verdicts) {
	times := make([]float64, len(runs))
	caught := 0
	for i, r := range runs {
		times[i] = inf
		if r.takenBack {
			times[i] = r.at.Seconds()
			caught++
		}
	}
	p.Caught = float64(caught) / float64(len(runs))
	p.Median, p.P90 = known(upperQuantile(times, 0.5)), known(upperQuantile(times, 0.9))
}
