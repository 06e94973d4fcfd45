package config

import (
	"encoding"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/rollout"
)

// shown says what somebody wrote.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		switch n.ShortTag() {
		case "!!map":
			return "a mapping"
		case "!!seq":
			return "a list"
		}
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!str":
		return quote(n.Value)
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		if _, finite := numberOf(n); !finite {
			return clip(n.Value)
		}
		return "the number " + clip(n.Value)
	case "!!timestamp":
		return "the date " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	}
	return fmt.Sprintf("a value with the tag %s", clip(n.ShortTag()))
}

// clip is s without line breaks, cut short.
func clip(s string) string {
	q := quote(s)
	if strings.HasSuffix(q, "…") {
		return q[1:len(q)-len("…")-1] + "…"
	}
	return q[1 : len(q)-1]
}

// want says what a type takes.
func want(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[rollout.Weight]():
		return "a fraction from 0.0001 to 1, such as 0.05 for 5%"
	case reflect.TypeFor[rollout.Duration](), reflect.TypeFor[time.Duration]():
		return "a duration such as 90s, 30m or 168h"
	case reflect.TypeFor[Path]():
		return "the path of a file"
	case reflect.TypeFor[slog.Level]():
		return "debug, info, warn or error"
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "a " + strings.ToLower(t.Name())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return want(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a finite number"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a mapping of names"
	case reflect.Struct:
		return "a mapping of " + oneOf(fieldsOf(t).keys...)
	}
	return "a value"
}

// nearest is the known word that is most like word; empty if none is like it.
func nearest(word string, known []string) string {
	word = strings.ToLower(word)
	for _, k := range known {
		if len(word) > 3 && strings.Contains(k, word) || len(k) > 3 && strings.Contains(word, k) {
			return k
		}
	}
	best, least := "", len(word)/3+1
	for _, k := range known {
		if d := distance(word, k); d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two words, in bytes. Words beyond 64 bytes are as far apart as they are long.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
