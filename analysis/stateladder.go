package analysis

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// halves are float32, written as the base64 of their bits.
type halves []float32

// MarshalJSON writes the bits.
func (h halves) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 4*len(h))
	for _, x := range h {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return json.Marshal(b)
}

// UnmarshalJSON reads the bits. NaN is refused.
func (h *halves) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	if len(b)%4 != 0 {
		return fmt.Errorf("%d bytes are no whole number of float32", len(b))
	}
	*h = make(halves, len(b)/4)
	for i := range *h {
		x := math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		if x != x {
			return errors.New("a number is NaN")
		}
		(*h)[i] = x
	}
	return nil
}

// key tells a group from the others that have a ladder.
func (g *group) key() string { return fmt.Sprintf("%s|%t", g.meter.metric.Name, g.caps) }

var ruledOut = float32(math.Inf(1))

// save is the wealth of every rung's bets, or infinity where it is ruled out.
func (l *ladder) save() halves {
	out := make(halves, 0, 2*rungBets*len(l.rungs))
	for i := range l.rungs {
		for on := range l.rungs[i].sides {
			rs := &l.rungs[i].sides[on]
			if rs.ruledOut {
				out = append(out, slices.Repeat(halves{ruledOut}, rungBets)...)
				continue
			}
			out = append(out, rs.logS[:]...)
		}
	}
	return out
}

func (l *ladder) load(h halves) error {
	if want := 2 * rungBets * len(l.rungs); len(h) != want {
		return fmt.Errorf("%d bets, want %d", len(h), want)
	}
	for i := range l.rungs {
		for on := range l.rungs[i].sides {
			rs := &l.rungs[i].sides[on]
			copy(rs.logS[:], h)
			rs.ruledOut, h = h[0] == ruledOut, h[rungBets:]
		}
	}
	return nil
}

func (t *traffic) save() *trafficState {
	return &trafficState{
		More: t.logS[0][:], Less: t.logS[1][:], Units: [2]float64{t.units.Stable, t.units.Canary}, Begun: t.begun, Off: t.off,
	}
}

func (t *traffic) load(s *trafficState) error {
	if s == nil || len(s.More) != trafficBets || len(s.Less) != trafficBets || !amount(s.Units[0]) || !amount(s.Units[1]) {
		return errors.New("the share of traffic is not there, or its numbers are out of range")
	}
	copy(t.logS[0][:], s.More)
	copy(t.logS[1][:], s.Less)
	t.units, t.begun, t.off = Requests{Stable: s.Units[0], Canary: s.Units[1]}, s.Begun, s.Off
	return nil
}
