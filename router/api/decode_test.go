package api

import "testing"

func TestDecodeSpeaksOfJSON(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		``:                                "want a JSON document, got nothing",
		`{"weight":`:                      "the JSON document ends too soon",
		`{"weight":0.05}`:                 "weight: want a whole number, got number 0.05",
		`{"weight":"5%"}`:                 "weight: want a whole number, got string",
		`{"rollback":1}`:                  "rollback: want true or false, got number",
		`{"stable":["v41"]}`:              "stable: want a string, got array",
		`[]`:                              "the document: want an object, got array",
		`{} {}`:                           "want one JSON document and nothing after it",
		`{"wieght":500}`:                  `json: unknown field "wieght"`,
		`{"stable":"v41","weight":500 x}`: "invalid character 'x' after object key:value pair",
	} {
		if err := Decode([]byte(raw), &Route{}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", raw, err, want)
		}
	}
	if err := Decode([]byte(` {"stable":"v41","weight":500} `), &Route{}); err != nil {
		t.Error(err)
	}
}
