package calibration

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
)

var update = flag.Bool("update", false, "write the golden files anew")

func presets(t testing.TB, names ...string) []analysis.Metric {
	t.Helper()
	var out []analysis.Metric
	for _, name := range names {
		m, ok := analysis.Preset(name)
		if !ok {
			t.Fatalf("%s is no preset", name)
		}
		out = append(out, m)
	}
	return out
}

// Each testdata/NAME.csv is faulty, and NAME.err is all that is wrong with it.
func TestFaultyCSV(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.csv")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	metrics := presets(t, "error_rate", "cost_per_task", "p95_latency")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ReadCSV(filepath.Base(file), strings.NewReader(string(data)), metrics)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error %v, want Problems", err)
			}
			golden := strings.TrimSuffix(file, ".csv") + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadCSV(t *testing.T) {
	t.Parallel()
	const text = `time,unit,metric,n,x,le:0.5,le:1
2026-03-01T12:00:30Z,pod-b,error_rate,50,2,,
2026-03-01T12:00:15Z,pod-a,total_requests,110,,,
2026-03-01T12:00:15Z,pod-a,error_rate,100,3,,
2026-03-01T12:01:00.02Z,pod-a,error_rate,10,1.5,,
2026-03-01T12:00:15Z,pod-a,p95_latency,100,,60,90
`
	h, err := ReadCSV("polls.csv", strings.NewReader(text), presets(t, "error_rate", "p95_latency"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Step != 15*time.Second || h.Polls != 4 || h.By != Instances || !h.From.Equal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%d polls of %s from %s by %s", h.Polls, h.Step, h.From, h.By)
	}
	slices.SortFunc(h.Units, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	a, b := h.Units[0], h.Units[1]
	for _, tt := range []struct {
		name string
		got  Column
		want []float64
	}{
		{"requests of a", a.Requests, []float64{110, 0, 0, 0}},
		{"requests of b", b.Requests, []float64{0, 50, 0, 0}},
		{"errors of a", a.Metrics[0].X, []float64{3, 0, 0, 1.5}},
		{"errors of b", b.Metrics[0].X, []float64{0, 2, 0, 0}},
		{"up to 0.5", a.Metrics[1].Buckets[0], []float64{60, 0, 0, 0}},
		{"up to 1", a.Metrics[1].Buckets[1], []float64{30, 0, 0, 0}},
		{"above", a.Metrics[1].Buckets[2], []float64{10, 0, 0, 0}},
	} {
		var got []float64
		for p := range h.Polls {
			got = append(got, tt.got.At(p))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestReadCSVRefuses is what shows only when all lines are known.
func TestReadCSVRefuses(t *testing.T) {
	t.Parallel()
	many := "time,metric,n,x\n" + strings.Repeat("0,error_rate,1,2\n", 1000)
	for _, c := range []struct{ name, text, want string }{
		{"two lines of one poll", "time,metric,n,x\n0,error_rate,10,1\n10,error_rate,10,1\n10.2,error_rate,10,1\n20,error_rate,10,1\n", "polls.csv:4: the same poll, unit and metric as line 3"},
		{"a year without computers", "time,metric,n,x\n0001-01-01T00:00:00Z,error_rate,10,1\n2026-01-01T00:00:00Z,error_rate,10,1\n", "polls.csv:2: time: "},
		{"a year too far", "time,metric,n,x\n2026-01-01T00:00:00Z,error_rate,10,1\n9999-01-01T00:00:00Z,error_rate,10,1\n", "want one from 1970 to 2200"},
		{"more than anybody reads", many, "and "},
	} {
		_, err := ReadCSV("polls.csv", strings.NewReader(c.text), presets(t, "error_rate"))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 25 {
			t.Errorf("%s: error %v, want one that says %q, in a few lines", c.name, err, c.want)
		}
	}
	bom := "\ufefftime,metric,n,x\n0,error_rate,10,1\n10,error_rate,10,1\n20,error_rate,10,1\n"
	if h, err := ReadCSV("polls.csv", strings.NewReader(bom), presets(t, "error_rate")); err != nil || h.Polls != 3 {
		t.Errorf("a spreadsheet's file: %v", err)
	}
}

func TestReadCSVOfUsers(t *testing.T) {
	t.Parallel()
	const text = "time,user,metric,n,x\n0,ann,error_rate,10,1\n60,ann,error_rate,10,2\n60,bob,error_rate,5,0\n"
	h, err := ReadCSV("polls.csv", strings.NewReader(text), presets(t, "error_rate"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]Total{"ann": {{20, 3}}, "bob": {{5, 0}}}
	if diff := cmp.Diff(want, h.Users); diff != "" || h.By != Users {
		t.Errorf("users (-want +got):\n%s", diff)
	}
}

func TestReadCSVTellsAFaultOfTheReader(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	if _, err := ReadCSV("polls.csv", iotest.ErrReader(broken), nil); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}
