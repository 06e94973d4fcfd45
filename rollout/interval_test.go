package rollout_test

import (
	"testing"

	. "github.com/aviary-rollouts/aviary/rollout"
)

func TestInterval(t *testing.T) {
	t.Parallel()
	at := func(f float64) *float64 { return &f }
	for _, tt := range []struct {
		lower, upper *float64
		want         string
	}{
		{nil, nil, ""},
		{at(0.12), at(0.55), "between +12% and +55%"},
		{at(-0.05), at(0.021), "between -5% and +2.1%"},
		{at(0), nil, "at least 0%"},
		{nil, at(4), "at most +400%"},
	} {
		if got := (Evidence{Lower: tt.lower, Upper: tt.upper}).Interval(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
