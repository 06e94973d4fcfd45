package app

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

func TestSDKMetricsUnionOfLabels(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	h := newSDKMetrics(registry)
	h.Counter("temporal_request").Inc(2)
	h.WithTags(map[string]string{"namespace": "default", "operation": "Poll", "unheard_of": "x"}).Counter("temporal_request").Inc(3)
	h.WithTags(map[string]string{"namespace": "default"}).WithTags(map[string]string{"namespace": "other"}).Gauge("temporal_slots").Update(7)
	h.Timer("temporal_latency").Record(50 * time.Millisecond)
	h.Gauge("temporal_request").Update(1) // the same name as another kind must not panic

	if n := testutil.CollectAndCount(registry, "temporal_request_total"); n != 2 {
		t.Errorf("temporal_request_total has %d series, want 2", n)
	}
	text, err := testutil.CollectAndFormat(registry, expfmt.TypeTextPlain, "temporal_slots", "temporal_latency_seconds")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`namespace="other"`, "temporal_latency_seconds_sum", "0.05"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %q:\n%s", want, text)
		}
	}
}
