"""MQTT: device messages in, predictions out."""
