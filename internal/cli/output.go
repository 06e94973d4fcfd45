package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"gopkg.in/yaml.v3"
)

// emit writes a value in the form that was asked for; table writes it for people.
func (a *app) emit(value any, table func()) error {
	if a.output == "table" {
		table()
		return nil
	}
	text, err := encode(value, a.output)
	if err != nil {
		return err
	}
	_, err = a.Out.Write(text)
	return err
}

// encode is a value as indented JSON or as YAML with the same keys in the same order.
func encode(value any, form string) ([]byte, error) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	if form != "yaml" {
		return append(text, '\n'), nil
	}
	// JSON is YAML, so the tree of the one, without its flow style and quotes, is the other.
	var tree yaml.Node
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("turn the output into YAML: %w", err)
	}
	unstyle(&tree)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&tree); err != nil {
		return nil, fmt.Errorf("turn the output into YAML: %w", err)
	}
	return out.Bytes(), nil
}

func unstyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		unstyle(c)
	}
}
