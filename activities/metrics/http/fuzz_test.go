package http

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/ohler55/ojg/jp"
)

// FuzzRead: whatever path and answer meet, there is one finite number or an error.
func FuzzRead(f *testing.F) {
	for _, s := range [][2]string{
		{"$.a", `{"a":1}`}, {"$.data[?(@.name == 'x')].n", `{"data":[{"name":"x","n":2}]}`}, {"$..n", `[[{"n":1}]]`}, {"$[-1]", `[1,2]`}, {"$.a[0:9:0]", `{"a":[1]}`},
		{"$[?(@.length() > 1)]", `["ab"]`}, {"$", `1e308`},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, path string, answer []byte) {
		at, err := jp.ParseString(path)
		var v any
		if err != nil || json.Unmarshal(answer, &v) != nil {
			return
		}
		x, err := part{path, at}.read(v)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			t.Errorf("%v from %s of %s", x, path, answer)
		}
	})
}
