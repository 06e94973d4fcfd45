package trials

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMarkdown(t *testing.T) {
	t.Parallel()
	got := Table{
		Title: "What", Head: []string{"rule", "10 rps"},
		Rows:  [][]string{{"own", "0"}, {"× 2", "0.5 / 1"}, {"short"}},
		Notes: []string{"A note."},
	}.Markdown()
	want := strings.Join([]string{
		"### What", "",
		"| rule  | 10 rps  |",
		"|-------|---------|",
		"| own   | 0       |",
		"| × 2   | 0.5 / 1 |",
		"| short |         |",
		"", "A note.", "",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ got, want string }{
		{span(15 * time.Second), "15 s"},
		{span(10 * time.Minute), "10 min"},
		{span(8*time.Minute + 48*time.Second), "8.8 min"},
		{span(5 * time.Hour), "5 h"},
		{span(84 * time.Hour), "3.5 d"},
		{span(never), none},
		{number(1.236), "1.24"},
		{number(12345.6), "12346"},
		{number(math.NaN()), none},
		{number(math.Inf(1)), none},
		{share(3, 400), "0.0075"},
		{share(0, 400), "0"},
		{share(0, 0), none},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	times := []time.Duration{never, 3, 1, 2}
	if got := within(times, 2); got != 2 {
		t.Errorf("%d within 2, want 2", got)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.25: 1, 0.5: 2, 0.75: 3, 0.76: never, 1: never} {
		if got := quantileOf(times, q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
	if quantileOf(nil, 0.5) != never {
		t.Error("the quantile of nothing is a time")
	}
	// Where none of n was seen, the limit is 1−0.05^(1/n).
	if got, want := mostLikely(0, 1200), 1-math.Pow(0.05, 1.0/1200); math.Abs(got-want) > 1e-9 {
		t.Errorf("at most %g, want %g", got, want)
	}
	if got := mostLikely(5, 5); got != 1 {
		t.Errorf("at most %g, want 1", got)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	chosen, err := Choose("zero", "late")
	if err != nil || len(chosen) != 2 || chosen[0].Name != "late" {
		t.Errorf("%v, %v, want late and zero, in the order of the documentation", chosen, err)
	}
	if all, err := Choose(); err != nil || len(all) != len(Experiments()) {
		t.Errorf("%d, %v, want all", len(all), err)
	}
	if _, err := Choose("x", "y"); err == nil || strings.Count(err.Error(), "want one of identical, boundary") != 2 {
		t.Errorf("error %v, want both names and what there is", err)
	}
}

// Every experiment fills its tables, whatever comes out.
func TestTables(t *testing.T) {
	t.Parallel()
	for _, e := range Experiments() {
		switch e.Name { // the others have tests of their own that simulate as much, and what is written is the same
		case "late", "ramp", "zero", "tail", "oddities":
		default:
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			for _, table := range e.Run(few(1, 1)) {
				if table.Title == "" || len(table.Rows) == 0 {
					t.Errorf("%+v, want a title and rows", table)
				}
				for _, row := range table.Rows {
					if len(row) != len(table.Head) {
						t.Errorf("%s: %d cells under %d headings", table.Title, len(row), len(table.Head))
					}
				}
			}
		})
	}
}
