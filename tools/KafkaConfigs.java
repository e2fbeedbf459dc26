import java.util.Collection;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.server.config.DynamicBrokerConfig;

/** Prints the wire facts of Apache Kafka's configs, one key a line, for tools/gen_kafka_configs.py. No sentence of Kafka's. */
public class KafkaConfigs {
    private static Object field(Class<?> owner, String name) throws Exception {
        var field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return field.get(null);
    }

    private static void print(String resource, Collection<ConfigDef.ConfigKey> keys, Set<String> writable) {
        for (var key : keys) {
            if (key.internalConfig) continue;
            var has = key.hasDefault() && key.defaultValue != null;
            var text = has ? "=" + ConfigDef.convertToString(key.defaultValue, key.type) : "";
            var rule = key.validator == null ? "" : key.validator.toString().replaceAll("\\s+", " ");
            var mode = writable == null || writable.contains(key.name) ? "dynamic" : "static";
            System.out.println(String.join("\t", resource, key.name, key.type.name(), text, mode, rule));
        }
    }

    public static void main(String[] arguments) throws Exception {
        var topic = org.apache.kafka.storage.internals.log.LogConfig.configDefCopy();
        var broker = kafka.server.KafkaConfig.configDef();
        var group = (ConfigDef) field(org.apache.kafka.coordinator.group.GroupConfig.class, "CONFIG_DEF");
        var metrics = org.apache.kafka.server.metrics.ClientMetricsConfigs.configDef();
        print("topic", new TreeMap<>(topic.configKeys()).values(), null);
        print("broker", new TreeMap<>(broker.configKeys()).values(), DynamicBrokerConfig.ALL_DYNAMIC_CONFIGS);
        var quotas = new TreeMap<>(org.apache.kafka.server.config.DynamicConfig.Broker.configKeys());
        quotas.keySet().removeAll(broker.configKeys().keySet());
        print("quota", quotas.values(), null);
        print("group", new TreeMap<>(group.configKeys()).values(), null);
        print("metrics", new TreeMap<>(metrics.configKeys()).values(), null);
        for (var synonyms : new TreeMap<>(org.apache.kafka.server.config.ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS).entrySet())
            for (var synonym : synonyms.getValue())
                System.out.println("synonym\t" + synonyms.getKey() + "\t" + synonym.name());
    }
}
