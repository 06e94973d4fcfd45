package app

import (
	"context"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	prommetrics "github.com/aviary-rollouts/aviary/activities/metrics/prometheus"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// PastQuery asks a metrics target for one version's past.
type PastQuery struct {
	Target         config.MetricsTarget
	Agent, Version string
	Metrics        []analysis.Metric
	Definitions    map[string]rollout.Definition // of metrics that are no presets
	From, To       time.Time
	Step           time.Duration // of a poll at least; as long as a scrape, or several
	UnitLabel      string        // empty: units are not told apart
	Users          bool          // the label's values are users
}

// pastTimeout is how long one piece of the past may take: more than a poll of a rollout, which reads seconds of it.
const pastTimeout = time.Minute

// Past reads one version's past. The text says what was read. Only prometheus keeps a past.
func Past(ctx context.Context, q PastQuery) (*calibration.History, string, error) {
	if q.Target.Provider != config.ProviderPrometheus {
		return nil, "", fmt.Errorf("the provider %s keeps no past, want prometheus; or polls in a file", q.Target.Provider)
	}
	p, err := prommetrics.New(prommetrics.Settings{
		URL: q.Target.Address, Token: q.Target.Token.Reveal(), Timeout: max(pastTimeout, q.Target.Timeout),
	})
	if err != nil {
		return nil, "", err
	}
	request := prommetrics.PastRequest{Agent: q.Agent, Version: q.Version, From: q.From, To: q.To, UnitLabel: q.UnitLabel}
	for _, m := range q.Metrics {
		of := metrics.Metric{Metric: m}
		if d, ok := q.Definitions[m.Name]; ok {
			of.Definition = &d
		}
		request.Metrics = append(request.Metrics, of)
	}
	scrapes, err := p.ScrapeInterval(ctx, request)
	if err != nil {
		return nil, "", err
	}
	by, most := q.by()
	step := pastStep(q.To.Sub(q.From), scrapes, q.Step, most)
	b := calibration.NewBuilder(q.Metrics, q.From, q.To, step, by)
	report, err := p.Past(ctx, request, b)
	if err != nil {
		return nil, "", err
	}
	return b.History(), report.String(), nil
}

// by is what the units are, and how many polls of them are kept. Longer ones take more time each.
func (q PastQuery) by() (calibration.By, int) {
	switch {
	case q.UnitLabel == "":
		return calibration.Whole, 250_000
	case q.Users:
		return calibration.Users, 20_000
	}
	return calibration.Instances, 60_000
}

// pastStep is a whole number of scrapes, in whole seconds where scrapes are: at least least, and few enough for the span.
func pastStep(span, scrapes, least time.Duration, most int) time.Duration {
	if whole := scrapes.Round(time.Second); whole > 0 && (scrapes-whole).Abs() < 100*time.Millisecond {
		scrapes = whole
	}
	scrapes = max(scrapes, time.Millisecond)
	least = max(least, span/time.Duration(most))
	return scrapes * max(1, (least+scrapes-1)/scrapes)
}
