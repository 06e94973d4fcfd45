package prometheus

import (
	"strings"
	"testing"

	"github.com/prometheus/common/model"
)

func TestSelectorMatches(t *testing.T) {
	t.Parallel()
	labels := model.Metric{"__name__": "hits_total", "code": "500", "path": "/a\"b", "empty": ""}
	for text, want := range map[string]bool{
		`hits_total`:                           true,
		` hits_total { } `:                     true,
		`misses_total`:                         false,
		`hits_total{code="500"}`:               true,
		`hits_total{code="50"}`:                false,
		`hits_total{code=~"5.."}`:              true,
		`hits_total{code=~"5"}`:                false, // anchored
		`hits_total{code=~"4..|5.."}`:          true,
		`hits_total{code!~"4.."}`:              true,
		`hits_total{code!="500"}`:              false,
		`hits_total{code='500',}`:              true,
		"hits_total{code=`500`, path=`/a\"b`}": true,
		`hits_total{path="/a\"b"}`:             true,
		`hits_total{path='/a"b'}`:              true,
		`hits_total{absent=""}`:                true,
		`hits_total{absent!=""}`:               false,
		`hits_total{empty=""}`:                 true,
	} {
		s, err := parseSelector(text, "agent", "version")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := s.matches(labels); got != want {
			t.Errorf("%s matches %v, want %v", text, got, want)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                         "a metric's name",
		`{code="500"}`:             "a metric's name",
		`hits total`:               "column 6",
		`hits{`:                    "a label's name",
		`hits{code}`:               "want =, !=",
		`hits{code="5}`:            "not closed",
		`hits{code=5}`:             "in quotes",
		`hits{code="5" "6"}`:       "want , or }",
		`hits{code=~"("}`:          "regular expression",
		`hits{code="\z"}`:          "no string",
		`hits{a="b"} or vector(1)`: "nothing after",
		`rate(hits[5m])`:           "want {",
		`hits{version="v1"}`:       "left out",
		`hits{__name__="x"}`:       "left out",
	} {
		if _, err := parseSelector(text, "agent", "version"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{`a{b="c"}`, `a{b=~"c|d",e!='f'}`, "a{b=`c`}", `a{b="\x41"}`, `a{b='\''}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSelector(text, "agent")
		if err != nil {
			return
		}
		s.matches(model.Metric{"__name__": model.LabelValue(s.name)})
		for _, m := range s.matchers {
			if m.label == "agent" || m.label == "__name__" {
				t.Errorf("%q: a reserved label got through", text)
			}
		}
	})
}
