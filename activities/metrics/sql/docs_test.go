package sql_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	sqlmetrics "github.com/aviary-rollouts/aviary/activities/metrics/sql"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// TestTheTutorial: the table, the role and the queries of the docs and the example work as they stand.
func TestTheTutorial(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(docs), -1)
	if len(blocks) != 3 {
		t.Fatalf("the docs have %d blocks of SQL, want a table, a role and a query", len(blocks))
	}
	d := newDatabase(t)
	d.do("DROP TABLE calls")
	d.do(blocks[0][1])
	name := d.name + "_aviary"
	d.do(strings.ReplaceAll(strings.ReplaceAll(blocks[1][1], " aviary ", " "+name+" "), " aviary;", " "+name+";"))

	file, err := config.LoadRollout("../../../examples/metrics-sql.yaml", config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	r := metrics.Request{Agent: "support-agent", Stable: "v41", Canary: "v42"}
	for name, kind := range map[string]analysis.Kind{"error_rate": analysis.Ratio, "cost_per_call": analysis.Mean} {
		definition := file.Metrics.Definitions[name]
		r.Metrics = append(r.Metrics, metrics.Metric{Metric: analysis.Metric{Name: name, Kind: kind}, Definition: &definition})
	}
	if got := file.Metrics.Definitions["error_rate"]; strings.TrimSpace(got.Query) != strings.TrimSpace(blocks[2][1]) {
		t.Errorf("the example asks\n%s\nthe docs say\n%s", got.Query, blocks[2][1])
	}
	p := d.open(sqlmetrics.Settings{DSN: server.DSNOf(name, "a long one", d.name, server.Address)})
	sample(t, p, &r)
	d.do(`INSERT INTO calls (agent, version, failed, cost_usd) SELECT 'support-agent', 'v42', i = 1, 0.25 FROM generate_series(1, 8) AS i`)
	var s metrics.Samples
	until(t, "the rows are counted", func() bool {
		s = sample(t, p, &r)
		return s.Requests != (rollout.Requests{})
	})
	wants(t, s, "error_rate", [2]float64{}, [2]float64{1, 8})
	wants(t, s, "cost_per_call", [2]float64{}, [2]float64{2, 8})
	if age := time.Since(s.At); age > time.Minute || age < -time.Minute {
		t.Errorf("as of %s ago", age)
	}
}
