import java.net.InetSocketAddress;
import org.apache.hadoop.hive.conf.HiveConf;
import org.apache.hadoop.hive.metastore.HiveMetaStore;
import org.apache.hadoop.hive.metastore.IHMSHandler;
import org.apache.hadoop.hive.metastore.TSetIpAddressProcessor;
import org.apache.hadoop.hive.metastore.txn.TxnDbUtil;
import org.apache.hadoop.hive.metastore.txn.TxnStore;
import org.apache.hadoop.hive.metastore.txn.TxnUtils;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.server.TThreadPoolServer;
import org.apache.thrift.transport.TServerSocket;

/** Hive's metastore on the loopback address: its own main class listens on every address, and no setting changes that. */
public class LoopbackMetastore {
  public static void main(String[] arguments) throws Exception {
    HiveConf conf = new HiveConf(); // hive-site.xml, on the class path
    TxnDbUtil.setConfValues(conf);
    TxnDbUtil.prepDb(conf); // the tables of locks, which no other setting creates

    HiveMetaStore.HMSHandler base = new HiveMetaStore.HMSHandler("metastore", conf, false);
    IHMSHandler handler = HiveMetaStore.newRetryingHMSHandler(base, conf, false);
    TServerSocket socket = new TServerSocket(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    TThreadPoolServer.Args options =
        new TThreadPoolServer.Args(socket)
            .processor(new TSetIpAddressProcessor<IHMSHandler>(handler))
            .protocolFactory(new TBinaryProtocol.Factory());

    Thread keeper = new Thread(() -> releaseLocksOfTheDead(TxnUtils.getTxnStore(conf)));
    keeper.setDaemon(true);
    keeper.start();
    new TThreadPoolServer(options).serve();
  }

  /** What Hive's AcidHouseKeeperService does: locks whose owners sent no heartbeat for hive.txn.timeout are released. */
  private static void releaseLocksOfTheDead(TxnStore locks) {
    while (true) {
      try {
        Thread.sleep(500);
        locks.performTimeOuts();
      } catch (InterruptedException end) {
        return;
      }
    }
  }
}
