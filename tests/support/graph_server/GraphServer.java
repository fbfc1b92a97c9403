import java.nio.file.Path;
import java.util.Map;
import org.neo4j.configuration.GraphDatabaseSettings;
import org.neo4j.configuration.connectors.BoltConnector;
import org.neo4j.configuration.helpers.SocketAddress;
import org.neo4j.dbms.api.DatabaseManagementService;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;

/** Neo4j Community with its Bolt server on this machine only. Words: folder, port; the password is GRAPH_PASSWORD. */
public class GraphServer {
    public static void main(String[] words) throws Exception {
        SocketAddress address = new SocketAddress("127.0.0.1", Integer.parseInt(words[1]));
        DatabaseManagementService service = new DatabaseManagementServiceBuilder(Path.of(words[0]))
                .setConfig(GraphDatabaseSettings.auth_enabled, true)
                .setConfig(BoltConnector.enabled, true)
                .setConfig(BoltConnector.listen_address, address)
                .build();
        Runtime.getRuntime().addShutdownHook(new Thread(service::shutdown));
        service.database("system").executeTransactionally(
                "ALTER USER neo4j SET PASSWORD $password CHANGE NOT REQUIRED",
                Map.of("password", System.getenv("GRAPH_PASSWORD")));
        System.out.println("ready");
        Thread.currentThread().join();
    }
}
