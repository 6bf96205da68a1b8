package config

// ResourceType is Kafka's number for what a config belongs to.
type ResourceType int8

// Resource types.
const (
	Topic         ResourceType = 2
	Broker        ResourceType = 4
	BrokerLogger  ResourceType = 8
	ClientMetrics ResourceType = 16
	Group         ResourceType = 32
)

// String is Kafka's name of the type, as it stands in its messages.
func (t ResourceType) String() string {
	switch t {
	case Topic:
		return "TOPIC"
	case Broker:
		return "BROKER"
	case BrokerLogger:
		return "BROKER_LOGGER"
	case ClientMetrics:
		return "CLIENT_METRICS"
	case Group:
		return "GROUP"
	default:
		return "UNKNOWN"
	}
}

// Resource is what configs are set on; a broker's name is its id, "" the cluster's default.
type Resource struct {
	Type ResourceType
	Name string
}
