package report

// Axis is how policies do along one condition, for one workload.
type Axis struct {
	Workload string      `json:"workload"`
	Axis     string      `json:"axis"`
	Unit     string      `json:"unit,omitempty"`
	Metric   string      `json:"metric"`
	Points   []AxisPoint `json:"points"`
}

// AxisPoint is one value of the condition.
type AxisPoint struct {
	Label string `json:"label"`
	Setup string `json:"setup"`
}
