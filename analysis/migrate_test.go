package analysis

import (
	"math/rand/v2"
	"os"
	"testing"
)

// The evidence that version 1 had in testdata/state-v1.json.
var evidenceOfV1 = map[string]float64{
	"cost_per_task|0|1.3|0|false|0": 0.34545238106995635, "error_rate|0.001|1.05|0|false|0": 0.42796377491088533,
	"error_rate|0.001|1.1|0|false|0": 0.4174489941578478, "error_rate|0.2|0|0|false|0": 0.3447143835745399,
	"p50_latency|0|1|1.3|false|0.3": 0.34511177541325705, "p95_latency|0.050000000000000044|0|0|false|4": 0.3454087834121013,
	"p95_latency|0|1|1.5|false|0.5": 0.3484963583970425, "task_completion_rate|0.020000000000000018|0.98|0|true|0": 0.3626612895112219,
	"task_completion_rate|0.050000000000000044|0.95|0|true|0": 0.3468873916601036, "time_to_first_token|0|1|1.5|false|0.5": 0.3483240916455491,
	"tokens_per_task|0|1.3|0|false|0": 0.3454721824891555, "tool_error_rate|0.001|1.2|0|false|0": 0.371389630814088,
	"user_satisfaction|0|0.9|0|true|0": 0.3462290324738056,
}

// A rollout that began under version 1 goes on with the evidence that it had.
func TestStateOfVersion1(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/state-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	e := engine(t, tenMetrics(t))
	if err := e.Restore(raw); err != nil {
		t.Fatal(err)
	}
	if len(e.tests) != len(evidenceOfV1) {
		t.Errorf("%d tests, want %d", len(e.tests), len(evidenceOfV1))
	}
	for _, test := range e.tests {
		if want := evidenceOfV1[test.key]; !near(test.worse.value(), want, 1e-12) {
			t.Errorf("%s: E is %g, want %g", test.key, test.worse.value(), want)
		}
	}
	again, err := e.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := engine(t, tenMetrics(t)).Restore(again); err != nil {
		t.Errorf("its state as of today can't be read: %v", err)
	}
	r := rand.New(rand.NewPCG(33, 1))
	for n := int64(150); n < 200; n++ {
		if !e.Observe(tenPoll(r, n, 2500)) {
			t.Fatalf("poll %d has no effect", n)
		}
	}
	if report := e.Evaluate(1, 50); report.Verdict == Violated || report.Verdict == NoData {
		t.Errorf("the verdict is %s", report.Verdict)
	}
}
